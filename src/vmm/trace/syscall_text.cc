#include "vmm/trace/syscall_text.h"

#include <fmt/format.h>
#include <string.h>

#include <algorithm>

#include "base/join.h"
#include "base/le.h"

namespace vmm {
namespace {

constexpr std::size_t kMostText = 64;
constexpr std::size_t kMostStrings = 8;

// Names and kinds of arguments, in the order of their numbers.
//
//   d a number     u one without a sign   x flags    o a mode   f a folder's descriptor
//   s a string     a a list of strings    p a pointer
//   b bytes, of which the next argument says how many
// From 0 on.
constexpr std::string_view kFirst =
    "read(dpu write(dbu open(sxo close(d stat(sp fstat(dp lstat(sp poll(pud lseek(ddd "
    "mmap(puxxdx mprotect(pux munmap(pu brk(p rt_sigaction(dppu rt_sigprocmask(dppu "
    "rt_sigreturn( ioctl(dxx pread64(dpud pwrite64(dbud readv(dpu writev(dpu access(so pipe(p "
    "select(dpppp sched_yield( mremap(puuxp msync(pux mincore(pup madvise(pud shmget(dux "
    "shmat(dpx shmctl(ddp dup(d dup2(dd pause( nanosleep(pp getitimer(dp alarm(u setitimer(dpp "
    "getpid( sendfile(ddpu socket(dxd connect(dpu accept(dpp sendto(dbuxpu recvfrom(dpuxpp "
    "sendmsg(dpx recvmsg(dpx shutdown(dd bind(dpu listen(dd getsockname(dpp getpeername(dpp "
    "socketpair(dxdp setsockopt(dddpu getsockopt(dddpp clone(xpppx fork( vfork( execve(sap "
    "exit(d wait4(dpxp kill(dd uname(p semget(ddx semop(dpu semctl(dddx shmdt(p msgget(dx "
    "msgsnd(dpux msgrcv(dpudx msgctl(ddp fcntl(ddx flock(dd fsync(d fdatasync(d truncate(su "
    "ftruncate(du getdents(dpu getcwd(pu chdir(s fchdir(d rename(ss mkdir(so rmdir(s creat(so "
    "link(ss unlink(s symlink(ss readlink(spu chmod(so fchmod(do chown(sdd fchown(ddd "
    "lchown(sdd umask(o gettimeofday(pp getrlimit(dp getrusage(dp sysinfo(p times(p "
    "ptrace(ddpx getuid( syslog(dpu getgid( setuid(d setgid(d geteuid( getegid( setpgid(dd "
    "getppid( getpgrp( setsid( setreuid(dd setregid(dd getgroups(dp setgroups(dp setresuid(ddd "
    "getresuid(ppp setresgid(ddd getresgid(ppp getpgid(d setfsuid(d setfsgid(d getsid(d "
    "capget(pp capset(pp rt_sigpending(pu rt_sigtimedwait(pppu rt_sigqueueinfo(ddp "
    "rt_sigsuspend(pu sigaltstack(pp utime(sp mknod(sox uselib(xxxxxx personality(x "
    "ustat(xxxxxx statfs(sp fstatfs(dp sysfs(dxx getpriority(dd setpriority(ddd "
    "sched_setparam(dp sched_getparam(dp sched_setscheduler(ddp sched_getscheduler(d "
    "sched_get_priority_max(d sched_get_priority_min(d sched_rr_get_interval(dp mlock(pu "
    "munlock(pu mlockall(x munlockall( vhangup( modify_ldt(dpu pivot_root(ss _sysctl(xxxxxx "
    "prctl(dxxxx arch_prctl(xp adjtimex(p setrlimit(dp chroot(s sync( acct(s settimeofday(pp "
    "mount(sssxp umount2(sx swapon(sx swapoff(s reboot(xxxp sethostname(bu setdomainname(bu "
    "iopl(d ioperm(uud create_module(xxxxxx init_module(pus delete_module(sx "
    "get_kernel_syms(xxxxxx query_module(xxxxxx quotactl(xsdp nfsservctl(xxxxxx getpmsg(xxxxxx "
    "putpmsg(xxxxxx afs_syscall(xxxxxx tuxcall(xxxxxx security(xxxxxx gettid( readahead(duu "
    "setxattr(sspux lsetxattr(sspux fsetxattr(dspux getxattr(sspu lgetxattr(sspu "
    "fgetxattr(dspu listxattr(spu llistxattr(spu flistxattr(dpu removexattr(ss lremovexattr(ss "
    "fremovexattr(ds tkill(dd time(p futex(pxdppd sched_setaffinity(dup sched_getaffinity(dup "
    "set_thread_area(xxxxxx io_setup(up io_destroy(x io_getevents(xddpp io_submit(xdp "
    "io_cancel(xpp get_thread_area(xxxxxx lookup_dcookie(xpu epoll_create(d "
    "epoll_ctl_old(xxxxxx epoll_wait_old(xxxxxx remap_file_pages(puxux getdents64(dpu "
    "set_tid_address(p restart_syscall( semtimedop(dpup fadvise64(dduu timer_create(dpp "
    "timer_settime(dxpp timer_gettime(dp timer_getoverrun(d timer_delete(d clock_settime(dp "
    "clock_gettime(dp clock_getres(dp clock_nanosleep(dxpp exit_group(d epoll_wait(dpdd "
    "epoll_ctl(dddp tgkill(ddd utimes(sp vserver(xxxxxx mbind(puxpux set_mempolicy(dpu "
    "get_mempolicy(ppuxx mq_open(sxop mq_unlink(s mq_timedsend(dbuup mq_timedreceive(dpupp "
    "mq_notify(dp mq_getsetattr(dpp kexec_load(xupx waitid(ddpxp add_key(ssbud "
    "request_key(sssd keyctl(dxxxx ioprio_set(ddd ioprio_get(dd inotify_init( "
    "inotify_add_watch(dsx inotify_rm_watch(dd migrate_pages(dupp openat(fsxo mkdirat(fso "
    "mknodat(fsox fchownat(fsddx futimesat(fsp newfstatat(fspx unlinkat(fsx renameat(fsfs "
    "linkat(fsfsx symlinkat(sfs readlinkat(fspu fchmodat(fso faccessat(fso pselect6(dppppp "
    "ppoll(puppu unshare(x set_robust_list(pu get_robust_list(dpp splice(dpdpux tee(ddux "
    "sync_file_range(duux vmsplice(dpux move_pages(dupppx utimensat(fspx epoll_pwait(dpddpu "
    "signalfd(dpu timerfd_create(dx eventfd(u fallocate(dxuu timerfd_settime(dxpp "
    "timerfd_gettime(dp accept4(dppx signalfd4(dpux eventfd2(ux epoll_create1(x dup3(ddx "
    "pipe2(px inotify_init1(x preadv(dpuuu pwritev(dpuuu rt_tgsigqueueinfo(dddp "
    "perf_event_open(pdddx recvmmsg(dpuxp fanotify_init(xx fanotify_mark(dxxfs prlimit64(ddpp "
    "name_to_handle_at(fsppx open_by_handle_at(dpx clock_adjtime(dp syncfs(d sendmmsg(dpux "
    "setns(dx getcpu(ppp process_vm_readv(dpupux process_vm_writev(dpupux kcmp(dddxx "
    "finit_module(dsx sched_setattr(dpx sched_getattr(dpux renameat2(fsfsx seccomp(xxp "
    "getrandom(pux memfd_create(sx kexec_file_load(ddusx bpf(dpu execveat(fsapx userfaultfd(x "
    "membarrier(dxd mlock2(pux copy_file_range(dpdpux preadv2(dpuuux pwritev2(dpuuux "
    "pkey_mprotect(puxd pkey_alloc(xx pkey_free(d statx(fsxxp io_pgetevents(xddppp rseq(pudx ";
// From 424 on.
constexpr std::string_view kLater =
    "pidfd_send_signal(ddpx io_uring_setup(up io_uring_enter(duuxpu io_uring_register(dxpu "
    "open_tree(fsx move_mount(fsfsx fsopen(sx fsconfig(ddspd fsmount(dxx fspick(fsx "
    "pidfd_open(dx clone3(pu close_range(uux openat2(fspu pidfd_getfd(ddx faccessat2(fsox "
    "process_madvise(dpudx epoll_pwait2(dpdppu mount_setattr(fsxpu quotactl_fd(dxdp "
    "landlock_create_ruleset(pux landlock_add_rule(dxpx landlock_restrict_self(dx "
    "memfd_secret(x process_mrelease(dx futex_waitv(puxpd set_mempolicy_home_node(puux ";
constexpr std::uint64_t kLaterBegin = 424;

// The word with that number in a list; empty when it has fewer.
std::string_view word_at(std::string_view words, std::uint64_t number) {
  for (; number != 0 && !words.empty(); --number) words = words.substr(words.find(' ') + 1);
  return words.substr(0, words.find(' '));
}

std::string quoted(std::string_view text, bool more) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c >= ' ' && c <= '~') {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return out + (more ? "\"..." : "\"");
}

std::string pointer(std::uint64_t value) {
  return value == 0 ? "NULL" : fmt::format("{:#x}", value);
}

std::string number(std::uint64_t value) {
  // An int's upper half may be anything that its caller left there.
  const bool is_int = value >> 32 == 0 || value >> 31 == (std::uint64_t{1} << 33) - 1;
  return is_int ? std::to_string(static_cast<std::int32_t>(value))
                : std::to_string(static_cast<std::int64_t>(value));
}

std::string bytes_at(std::uint64_t address, std::uint64_t size, const ReadUser& read) {
  std::string bytes(static_cast<std::size_t>(std::min<std::uint64_t>(size, kMostText)), '\0');
  const std::size_t n = read(address, std::as_writable_bytes(std::span(bytes)));
  if (n == 0 && size != 0) return pointer(address);
  return quoted(std::string_view(bytes).substr(0, n), n < size);
}

std::string string_at(std::uint64_t address, const ReadUser& read) {
  std::array<char, kMostText> bytes{};
  const std::size_t n = read(address, std::as_writable_bytes(std::span(bytes)));
  if (n == 0) return pointer(address);
  const std::string_view text(bytes.data(), n);
  const std::size_t end = text.find('\0');
  return quoted(text.substr(0, end), end == std::string_view::npos);
}

std::string strings_at(std::uint64_t address, const ReadUser& read) {
  std::vector<std::string> strings;
  for (std::size_t i = 0;; ++i) {
    std::array<std::byte, sizeof(std::uint64_t)> entry{};
    if (read(address + i * entry.size(), entry) != entry.size()) {
      if (i == 0) return pointer(address);
      break;
    }
    const std::uint64_t text = load_le(entry);
    if (text == 0) break;
    if (i == kMostStrings) {
      strings.emplace_back("...");
      break;
    }
    strings.push_back(string_at(text, read));
  }
  return "[" + join(strings, ", ") + "]";
}

std::string argument_text(char kind, std::uint64_t value, std::uint64_t next,
                          const ReadUser& read) {
  constexpr auto kCurrentFolder = static_cast<std::uint32_t>(-100);  // AT_FDCWD
  switch (kind) {
    case 'd':
      return number(value);
    case 'f':
      return static_cast<std::uint32_t>(value) == kCurrentFolder ? "AT_FDCWD" : number(value);
    case 'u':
      return std::to_string(value);
    case 'o':
      return value == 0 ? "0" : fmt::format("0{:o}", value & 07777777);
    case 's':
      return value == 0 ? "NULL" : string_at(value, read);
    case 'a':
      return value == 0 ? "NULL" : strings_at(value, read);
    case 'b':
      return value == 0 ? "NULL" : bytes_at(value, next, read);
    case 'p':
      return pointer(value);
    default:
      return value == 0 ? "0" : fmt::format("{:#x}", value);
  }
}

std::string name_of(std::uint64_t number, const std::optional<SyscallForm>& form) {
  return form ? std::string(form->name) : fmt::format("syscall_{:#x}", number);
}

}  // namespace

std::optional<SyscallForm> syscall_form(std::uint64_t number) {
  const std::string_view word =
      number < kLaterBegin ? word_at(kFirst, number) : word_at(kLater, number - kLaterBegin);
  const std::size_t name = word.find('(');
  if (name == std::string_view::npos) return std::nullopt;
  return SyscallForm{word.substr(0, name), word.substr(name + 1)};
}

std::string syscall_text(std::uint64_t number, const std::array<std::uint64_t, 6>& arguments,
                         const ReadUser& read) {
  const auto form = syscall_form(number);
  const std::string_view kinds = form ? form->arguments : "xxxxxx";
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const std::uint64_t next = i + 1 < arguments.size() ? arguments[i + 1] : 0;
    texts.push_back(argument_text(kinds[i], arguments[i], next, read));
  }
  return name_of(number, form) + "(" + join(texts, ", ") + ")";
}

std::string syscall_return_text(std::uint64_t number, std::uint64_t result) {
  constexpr std::uint64_t kMostErrors = 4095;  // Linux: include/linux/err.h
  const auto form = syscall_form(number);
  const std::string name = name_of(number, form);
  if (result >= -kMostErrors) {
    const char* const error = ::strerrorname_np(static_cast<int>(-result));
    return fmt::format("{} = {} {}", name, static_cast<std::int64_t>(result),
                       error == nullptr ? "?" : error);
  }
  const bool address = form && (form->name == "mmap" || form->name == "brk" ||
                                form->name == "mremap" || form->name == "shmat");
  return address ? fmt::format("{} = {:#x}", name, result)
                 : fmt::format("{} = {}", name, static_cast<std::int64_t>(result));
}

}  // namespace vmm
