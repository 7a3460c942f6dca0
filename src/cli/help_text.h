// The prose of --help: what the option list does not say.
#pragma once

#include <string_view>

namespace vmm::cli {

inline constexpr std::string_view kAbout = "Virtual machines on Linux KVM.";

inline constexpr std::string_view kMainFooter = R"(Examples:
  vmm run                                    the built-in guest, to see that it works
  vmm run --kernel bzImage --initrd rd.cpio  boot Linux on this terminal; Ctrl-A x ends it
  vmm test *.elf --junit report.xml          kernels that test themselves, in parallel
  vmm ctl /tmp/vm.ctl status                 how a guest is that runs with --control
  vmm snapshot /tmp/vm.ctl vm.snap           write that guest to a file
  vmm restore vm.snap                        let it go on from there
  vmm top /tmp/vm.ctl                        what keeps it busy, as it goes
  vmm inspect bzImage                        what is in a kernel image
  vmm doctor                                 what this host's KVM can do

'vmm help COMMAND' or 'vmm COMMAND --help' tells more.)";

inline constexpr std::string_view kRunFooter = R"(Kernel command line:
  For Linux: console=ttyS0 earlyprintk=ttyS0 reboot=k panic=-1, then what --cmdline says;
  --cmdline-only leaves the default out, and --console stdio adds console=hvc0 to it. Other kernels get --cmdline alone. Without --kernel, --cmdline is for the built-in
  guest: 'off' powers it off, 'cmd=mem;cpu' runs commands.

Keys on a terminal:
  Ctrl-A x   end          Ctrl-A c   menu          Ctrl-A Ctrl-A   one Ctrl-A for the guest

Examples:
  Linux with 1 GiB and 2 CPUs, its console on this terminal:
    vmm run --kernel bzImage --initrd initrd.cpio.gz --mem 1G --cpus 2
  A root file system in the initrd, and a quiet kernel:
    vmm run --kernel vmlinux --initrd rd.cpio --cmdline 'quiet init=/bin/sh'
  Commands from a pipe, the console into a file:
    echo 'uname -a; poweroff -f' | vmm run --kernel bzImage --initrd rd.cpio > console.log
  The console on a socket, for socat - UNIX-CONNECT:/tmp/vm.sock
    vmm run --kernel bzImage --initrd rd.cpio --serial unix:/tmp/vm.sock
  A virtio console on this terminal, and a port for a program in the guest:
    vmm run --kernel bzImage --initrd rd.cpio --console stdio --console unix:/tmp/agent.sock,name=agent
  A Multiboot kernel with a module:
    vmm run --kernel kernel.elf --module ramdisk.img,root=ram --cmdline verbose
  Sixteen bits of boot code at 0x7c00, every port access shown:
    vmm run --kernel boot.bin --boot flat,addr=0x7c00,mode=real --trace=pio
  Go on from a snapshot, with the disk as it was then:
    vmm run --restore vm.snap --disk path=copy.img
  The same machine every time, with more memory today:
    vmm run --config machine.json --mem 4G

Exit status: 0 the guest powered off, 1 host error, 2 bad usage; vmm(1) lists all.)";

inline constexpr std::string_view kTestFooter =
    R"(An image is what --kernel of vmm run takes. It has passed when it powers off, or writes the value of
--pass-value to the debug-exit port (0xf4). Everything else is a failure: another value, a reset, a
triple fault, the end of its time. Options behind -- are those of vmm run, for every image.

Examples:
  vmm test tests/*.elf
  vmm test --jobs 4 --timeout 10 --junit report.xml tests/*.flat -- --testdev --cpus 2
  vmm test --pass-value 16 target/x86_64/debug/deps/*.elf -- --mem 64M --boot multiboot

The outcome is told on standard output as TAP (testanything.org), in the order of the images.
Exit status: 0 all have passed, 1 some have not, 2 bad usage, 4 no usable /dev/kvm.)";

inline constexpr std::string_view kCtlFooter = R"(Commands:
  status                   what the guest and its devices are at
  pause                    let the guest stand still
  resume                   let it go on
  quit                     end it at once
  balloon SIZE             how much of its memory the guest is to give back
  memory SIZE              how much memory the guest is to have, up to --memory-max
  disk NAME resize [SIZE]  tell the guest a disk's new size; with SIZE, grow its image first
  disk NAME limit LIMIT=N[,...]|none
                           how much the guest may do on a disk in a second: bps, iops, ...
  disk add OPTIONS         plug a disk in: what --disk takes; prints its name
  disk remove NAME [force] let the guest give it up; with force, take it away when it does not
  net NAME up|down         plug a network cable in, or pull it
  net add OPTIONS          plug a network interface in: what --net takes; prints its name
  net remove NAME [force]  let the guest give it up, as a disk
  gdb WHERE                let a debugger connect: unix:PATH or tcp:127.0.0.1:PORT
  snapshot FILE [base BASE]  write the guest to a file, for vmm restore; it goes on. With a base
                           only what has changed since that snapshot, which stays needed
  core FILE                write it to an ELF core file, for gdb, crash and drgn; it goes on

Examples:
  vmm run --kernel bzImage --control /tmp/vm.ctl --balloon --disk path=root.img
  vmm ctl /tmp/vm.ctl balloon 256M
  vmm ctl /tmp/vm.ctl disk disk0 resize 20G
  vmm ctl /tmp/vm.ctl disk add path=more.img
  vmm ctl /tmp/vm.ctl snapshot vm.snap
  vmm ctl --json /tmp/vm.ctl status | jq .disks

Exit status: 0 it was done, 1 it was refused or nobody listens, 2 bad usage.)";

inline constexpr std::string_view kStatFooter = R"(Examples:
  vmm stat /tmp/vm.ctl
  vmm stat --json /tmp/vm.ctl | jq '.accesses[:5]'

Exit status: 0 it was done, 1 it was refused or nobody listens, 2 bad usage.)";

inline constexpr std::string_view kTraceFooter = R"(Examples:
  vmm trace /tmp/vm.ctl | tail
  vmm trace /tmp/vm.ctl --chrome -o trace.json     then open it in ui.perfetto.dev

Exit status: 0 it was done, 1 it was refused or nobody listens, 2 bad usage.)";

inline constexpr std::string_view kProfileFooter =
    R"(Names come from --symbols of vmm run; callers are found by frame pointers.

Examples:
  vmm profile /tmp/vm.ctl -o guest.svg --seconds 10
  vmm profile /tmp/vm.ctl | sort -k2 -n -t' ' | tail      folded stacks, as for flamegraph.pl

Exit status: 0 it was done, 1 it was refused or nobody listens, 2 bad usage.)";

inline constexpr std::string_view kInspectFooter = R"(Examples:
  vmm inspect /boot/vmlinuz-$(uname -r)
  vmm inspect --json bzImage | jq .format
  vmm inspect vm.snap | jq .machine.state.cpus[0].registers

Exit status: 0 the image can boot, 6 it cannot.)";

inline constexpr std::string_view kDiffFooter =
    R"(Registers and devices' fields that are not the same, and the pages of memory.

Examples:
  vmm snapshot /tmp/vm.ctl before.snap; sleep 1; vmm snapshot /tmp/vm.ctl after.snap
  vmm diff before.snap after.snap
  vmm diff --symbols System.map before.snap after.snap
  vmm diff --json before.snap after.snap | jq .memory.differing_pages

Exit status: 0 they are the same, 1 they are not, 2 bad usage, 6 a file cannot be used.)";

inline constexpr std::string_view kDoctorFooter = R"(Examples:
  vmm doctor
  vmm doctor --json | jq .quirks

Exit status: 0 guests can run here, 4 there is no usable /dev/kvm.)";

}  // namespace vmm::cli
