// The pair of 8259A interrupt controllers.
#pragma once

#include <stdbool.h>

// Moves their vectors away from the exceptions and masks all their inputs.
void pic_init(void);
bool pic_present(void);  // valid after pic_init()
void pic_unmask_serial(void);
void pic_end_of_interrupt(void);
