// The floor of snapshots: a machine made, saved and made again with the bare ioctls and nothing
// else. One thread.
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct floor_vm;

// One CPU that enters `code` at 0x1000 in real mode. Memory is anonymous, or the file `fd` from
// `offset` on, mapped privately. Failures end the program.
struct floor_vm* floor_create(size_t memory, int fd, long offset, const void* code,
                              size_t code_size);
void floor_destroy(struct floor_vm* vm);
unsigned char* floor_memory(struct floor_vm* vm);
// Runs until the guest writes to port 0xf4.
void floor_run(struct floor_vm* vm);

// All state of the CPU, by the ioctls that a monitor needs.
struct floor_state;
struct floor_state* floor_save(struct floor_vm* vm);
void floor_restore(struct floor_vm* vm, const struct floor_state* state);

#ifdef __cplusplus
}
#endif
