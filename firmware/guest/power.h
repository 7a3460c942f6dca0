// The ways out. Each returns when the machine did not do what was asked.
#pragma once

void power_off(void);
void power_reboot(void);
void power_panic(void);
