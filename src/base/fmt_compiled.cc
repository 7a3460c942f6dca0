// The part of fmt that is compiled once, built from its headers: Debian has it only as a shared
// library, which also brings the shared C++ library, and every library that is loaded at run time
// makes each start of the command measurably longer (docs/benchmarks.md). The explicit
// instantiations are those that <fmt/format.h> declares extern.
#include <fmt/format-inl.h>

FMT_BEGIN_NAMESPACE
namespace detail {

template auto dragonbox::to_decimal(float value) noexcept -> dragonbox::decimal_fp<float>;
template auto dragonbox::to_decimal(double value) noexcept -> dragonbox::decimal_fp<double>;
template auto thousands_sep_impl<char>(locale_ref locale) -> thousands_sep_result<char>;
template auto decimal_point_impl<char>(locale_ref locale) -> char;

}  // namespace detail
FMT_END_NAMESPACE
