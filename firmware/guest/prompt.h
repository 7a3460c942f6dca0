// The prompt on the serial line.
#pragma once

// Reads and runs commands for ever.
void prompt_run(void);
