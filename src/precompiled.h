// What nearly every file of the library includes, parsed once a library instead of once a file: two
// thirds of what a build costs. Every file still includes what it uses (tests/style/headers_test.py
// looks at headers without this, and so does a build with -Db_pch=false). No headers of the
// project, since a change to one must not rebuild everything, and not nlohmann/json.hpp, whose
// templates GCC would instantiate in every file.
#ifndef VMM_PRECOMPILED_H  // GCC warns of "#pragma once" here
#define VMM_PRECOMPILED_H

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <tl/expected.hpp>
#include <utility>
#include <variant>
#include <vector>

#endif  // VMM_PRECOMPILED_H
