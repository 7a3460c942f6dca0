// As src/precompiled.h, for test programs of more than a few files.
#ifndef VMM_TESTS_PRECOMPILED_H  // GCC warns of "#pragma once" here
#define VMM_TESTS_PRECOMPILED_H

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

#endif  // VMM_TESTS_PRECOMPILED_H
