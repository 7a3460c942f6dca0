// libZydis, loaded when the first instruction is to be decoded: most guests never need it, and
// loading it would be a tenth of what starting a machine costs.
#pragma once

#include <Zydis/Decoder.h>
#include <Zydis/Formatter.h>
#include <Zydis/Mnemonic.h>
#include <Zydis/Register.h>

#include "base/result.h"
#include "base/shared_library.h"

namespace vmm::completion {

// The functions that we use.
struct ZydisLibrary {
  SharedLibrary library;
  decltype(&::ZydisDecoderInit) decoder_init = nullptr;
  decltype(&::ZydisDecoderDecodeFull) decode_full = nullptr;
  decltype(&::ZydisFormatterInit) formatter_init = nullptr;
  decltype(&::ZydisFormatterFormatInstruction) format_instruction = nullptr;
  decltype(&::ZydisMnemonicGetString) mnemonic_string = nullptr;
  decltype(&::ZydisCategoryGetString) category_string = nullptr;
  decltype(&::ZydisRegisterGetClass) register_class = nullptr;
  decltype(&::ZydisRegisterGetId) register_id = nullptr;
  decltype(&::ZydisRegisterGetLargestEnclosing) register_largest = nullptr;
};

// Loads it, once for the process. Errors: kUnsupported, naming the package that has it. Any thread.
const Result<ZydisLibrary>& load_zydis();

// Only where load_zydis() has succeeded: whoever holds a decoded instruction may take that for
// granted.
inline const ZydisLibrary& zydis() { return *load_zydis(); }

}  // namespace vmm::completion
