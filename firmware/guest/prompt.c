#include "prompt.h"

#include <stdbool.h>

#include "commands.h"
#include "interrupts.h"
#include "print.h"
#include "serial.h"

enum {
  kMaxLine = 128,
  kCtrlC = 0x03,
  kBackspace = 0x08,
  kCtrlU = 0x15,
  kEscape = 0x1b,
  kDelete = 0x7f
};

static int looked_ahead = -1;  // a byte that was there when we wanted to sleep

static bool input_ready(void) {
  looked_ahead = serial_get();
  return looked_ahead >= 0;
}

static char next_byte(void) {
  for (;;) {
    int byte = looked_ahead;
    looked_ahead = -1;
    if (byte < 0) byte = serial_get();
    if (byte >= 0) return (char)byte;
    interrupts_wait_for_input(input_ready);
  }
}

static void erase(unsigned* length) {
  print("\b \b");
  (*length)--;
}

// A line without its end. What does not fit and what cannot be printed is dropped, so are escape
// sequences (arrow keys and the like): ESC [ parameters, to the first letter or ~.
static void read_line(char* line) {
  enum { kText, kAfterEscape, kInSequence } state = kText;
  unsigned length = 0;
  for (;;) {
    const unsigned char byte = (unsigned char)next_byte();
    if (state == kAfterEscape) {
      state = byte == '[' || byte == 'O' ? kInSequence : kText;
    } else if (state == kInSequence) {
      if (byte >= 0x40 && byte < 0x7f) state = kText;
      if (byte != '\r' && byte != '\n') continue;
      state = kText;
    }
    if (byte == '\r' || byte == '\n') {
      print("\n");
      line[length] = '\0';
      return;
    }
    if (state != kText) continue;
    if (byte == kEscape) {
      state = kAfterEscape;
    } else if (byte == kBackspace || byte == kDelete) {
      if (length > 0) erase(&length);
    } else if (byte == kCtrlU) {
      while (length > 0) erase(&length);
    } else if (byte == kCtrlC) {
      print("^C\n");
      line[0] = '\0';
      return;
    } else if (byte >= 0x20 && byte < 0x7f && length < kMaxLine - 1) {
      line[length++] = (char)byte;
      print_char((char)byte);
    }
  }
}

void prompt_run(void) {
  static char line[kMaxLine];
  for (;;) {
    print("vmm> ");
    read_line(line);
    command_run(line);
  }
}
