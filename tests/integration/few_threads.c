// For LD_PRELOAD: as on a host that makes no more than THREADS threads (EAGAIN).
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

typedef int create(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);

static create* real;
static int left;

__attribute__((constructor)) static void set_up(void) {
  real = (create*)dlsym(RTLD_NEXT, "pthread_create");
  const char* const threads = getenv("THREADS");
  left = threads ? atoi(threads) : 0;
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                   void* argument) {
  if (__atomic_fetch_sub(&left, 1, __ATOMIC_SEQ_CST) <= 0) return EAGAIN;
  return real(thread, attributes, start, argument);
}
