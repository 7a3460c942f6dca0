// A large array of zeroes, of which each page is there only once it has been written to.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace vmm::interpreter {

struct Unmap {
  std::size_t bytes = 0;
  void operator()(void* array) const noexcept;
};

// Not from the heap: calloc() clears what others have left there, which makes all of it be there.
template <typename T>
using ZeroArray = std::unique_ptr<T[], Unmap>;

// Throws std::bad_alloc.
void* map_zeroes(std::size_t bytes);

// Of objects that zeroes are, and that need no destructor. Throws std::bad_alloc.
template <typename T>
ZeroArray<T> make_zero_array(std::size_t count) {
  if (count > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_alloc();
  const std::size_t bytes = count * sizeof(T);
  return ZeroArray<T>(static_cast<T*>(map_zeroes(bytes)), Unmap{bytes});
}

}  // namespace vmm::interpreter
