// What can be typed at the prompt.
#pragma once

// Runs one command line; the text is taken apart in place.
void command_run(char* line);
