/* A program with debug information, for dwarf_test.cc. */
struct other {
  long x;
};

struct inner {
  char letter;
  long base;
  unsigned size;
};

typedef const volatile unsigned long word;

struct thing {
  word first;
  unsigned a : 3, b : 5;
  char comm[16];
  struct {
    int in;
    union {
      int one;
      long other;
    };
  };
  struct inner core;
  struct inner mem[3];
  struct thing* next;
};

struct thing thing;
struct other other;

int main(void) { return (int)thing.first + (int)other.x; }
