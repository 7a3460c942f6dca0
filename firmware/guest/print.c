#include "print.h"

#include <stdarg.h>
#include <stdbool.h>

#include "serial.h"

void print_char(char c) {
  if (c == '\n') serial_put('\r');
  serial_put(c);
}

static void print_padded(const char* text, unsigned length, unsigned width, bool left, char fill) {
  for (unsigned i = length; !left && i < width; i++) print_char(fill);
  for (unsigned i = 0; i < length; i++) print_char(text[i]);
  for (unsigned i = length; left && i < width; i++) print_char(' ');
}

static void print_number(uint64_t value, unsigned base, bool negative, unsigned width, char fill) {
  char digits[24];
  unsigned at = sizeof digits;
  do {
    digits[--at] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value != 0);
  if (negative) digits[--at] = '-';
  print_padded(digits + at, (unsigned)sizeof digits - at, width, false, fill);
}

void print(const char* format, ...) {
  va_list args;
  va_start(args, format);
  for (; *format != '\0'; format++) {
    if (*format != '%') {
      print_char(*format);
      continue;
    }
    format++;
    const bool left = *format == '-';
    if (left) format++;
    const char fill = *format == '0' ? '0' : ' ';
    unsigned width = 0;
    for (; *format >= '0' && *format <= '9'; format++)
      width = width * 10 + (unsigned)(*format - '0');
    const bool wide = *format == 'l';
    if (wide) format++;
    switch (*format) {
      case 's': {
        const char* text = va_arg(args, const char*);
        unsigned length = 0;
        while (text[length] != '\0') length++;
        print_padded(text, length, width, left, ' ');
        break;
      }
      case 'c':
        print_char((char)va_arg(args, int));
        break;
      case 'd': {
        const int64_t value = wide ? va_arg(args, int64_t) : va_arg(args, int);
        print_number(value < 0 ? -(uint64_t)value : (uint64_t)value, 10, value < 0, width, fill);
        break;
      }
      case 'u':
      case 'x': {
        const uint64_t value = wide ? va_arg(args, uint64_t) : va_arg(args, unsigned);
        print_number(value, *format == 'x' ? 16 : 10, false, width, fill);
        break;
      }
      case '%':
        print_char('%');
        break;
      default:  // the compiler checks formats; a stray end of string must still end here
        va_end(args);
        return;
    }
  }
  va_end(args);
}
