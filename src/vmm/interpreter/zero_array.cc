#include "vmm/interpreter/zero_array.h"

#include <sys/mman.h>

namespace vmm::interpreter {

void Unmap::operator()(void* array) const noexcept { ::munmap(array, bytes); }

void* map_zeroes(std::size_t bytes) {
  void* const array = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (array == MAP_FAILED) throw std::bad_alloc();
  // Where all memory may come in large pages the first byte would bring 2 MiB. Advice.
  (void)::madvise(array, bytes, MADV_NOHUGEPAGE);
  return array;
}

}  // namespace vmm::interpreter
