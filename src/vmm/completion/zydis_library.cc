#include "vmm/completion/zydis_library.h"

#include <utility>

namespace vmm::completion {
namespace {

Result<ZydisLibrary> load() {
  // The ABI that the headers are for: Zydis 4.
  ZydisLibrary found{.library = VMM_TRY(SharedLibrary::open(
                         "libZydis.so.4.0", "Decoding instructions", "libzydis4.0"))};
  const SharedLibrary& library = found.library;
  if (!library.find("ZydisDecoderInit", found.decoder_init) ||
      !library.find("ZydisDecoderDecodeFull", found.decode_full) ||
      !library.find("ZydisFormatterInit", found.formatter_init) ||
      !library.find("ZydisFormatterFormatInstruction", found.format_instruction) ||
      !library.find("ZydisMnemonicGetString", found.mnemonic_string) ||
      !library.find("ZydisCategoryGetString", found.category_string) ||
      !library.find("ZydisRegisterGetClass", found.register_class) ||
      !library.find("ZydisRegisterGetId", found.register_id) ||
      !library.find("ZydisRegisterGetLargestEnclosing", found.register_largest)) {
    return fail(ErrorCode::kUnsupported, "libZydis.so.4.0 lacks a function of Zydis 4.0");
  }
  return found;
}

}  // namespace

const Result<ZydisLibrary>& load_zydis() {
  // Never unloaded: a machine may still decode while the process ends.
  static const Result<ZydisLibrary>* const library = new Result<ZydisLibrary>(load());
  return *library;
}

}  // namespace vmm::completion
