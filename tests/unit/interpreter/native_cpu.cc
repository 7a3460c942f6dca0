#include "native_cpu.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

// rdi: the state, rsi: the code.
extern "C" void native_cpu_run(vmm::interpreter::NativeState* state, const std::uint8_t* code);

asm(R"(
    .text
    .globl native_cpu_run
native_cpu_run:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    push %rdi
    push %rsi
    pushq 128(%rdi)
    popfq
    mov 0(%rdi), %rax
    mov 8(%rdi), %rcx
    mov 16(%rdi), %rdx
    mov 24(%rdi), %rbx
    mov 40(%rdi), %rbp
    mov 48(%rdi), %rsi
    mov 64(%rdi), %r8
    mov 72(%rdi), %r9
    mov 80(%rdi), %r10
    mov 88(%rdi), %r11
    mov 96(%rdi), %r12
    mov 104(%rdi), %r13
    mov 112(%rdi), %r14
    mov 120(%rdi), %r15
    mov 56(%rdi), %rdi
    call *(%rsp)
    push %rdi
    mov 16(%rsp), %rdi
    mov %rax, 0(%rdi)
    mov %rcx, 8(%rdi)
    mov %rdx, 16(%rdi)
    mov %rbx, 24(%rdi)
    mov %rbp, 40(%rdi)
    mov %rsi, 48(%rdi)
    mov %r8, 64(%rdi)
    mov %r9, 72(%rdi)
    mov %r10, 80(%rdi)
    mov %r11, 88(%rdi)
    mov %r12, 96(%rdi)
    mov %r13, 104(%rdi)
    mov %r14, 112(%rdi)
    mov %r15, 120(%rdi)
    pop %rax
    mov %rax, 56(%rdi)
    pushfq
    popq 128(%rdi)
    cld
    pop %rsi
    pop %rdi
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
)");

namespace vmm::interpreter {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::uint8_t kRet = 0xc3;

}  // namespace

NativeCpu::NativeCpu() {
  void* const page = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE | PROT_EXEC,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) std::abort();
  code_ = static_cast<std::uint8_t*>(page);
}

NativeCpu::~NativeCpu() { ::munmap(code_, kPage); }

void NativeCpu::run(std::span<const std::uint8_t> instruction, NativeState& state) {
  std::copy(instruction.begin(), instruction.end(), code_);
  code_[instruction.size()] = kRet;
  native_cpu_run(&state, code_);
}

}  // namespace vmm::interpreter
