// What CPUID and the control registers say.
#pragma once

void print_cpuid(void);
void print_control_registers(void);
