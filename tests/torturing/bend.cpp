// SPDX-License-Identifier: BSL-1.0
//
// Runs a program and bends one of its system calls, as strace cannot: it can answer in the kernel's stead, but then
// nothing was done. Here the kernel does it, only less of it, or does it and fails afterwards: a short read or write is
// one, and a failed close has closed (close(2), Notes).
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <exception>
#include <iostream>
#include <map>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace {

// The third argument and the result.
#if defined(__x86_64__)
auto& third(user_regs_struct& registers) { return registers.rdx; }
auto& result(user_regs_struct& registers) { return registers.rax; }
#elif defined(__aarch64__)
auto& third(user_regs_struct& registers) { return registers.regs[2]; }
auto& result(user_regs_struct& registers) { return registers.regs[0]; }
#else
#error "bend.cpp knows the registers of x86-64 and of AArch64"
#endif

const std::map<std::string, std::uint64_t> numbers = {{"close", SYS_close},
                                                      {"getdents64", SYS_getdents64},
                                                      {"pread64", SYS_pread64},
                                                      {"pwrite64", SYS_pwrite64},
                                                      {"read", SYS_read}};

struct Bend {
  std::uint64_t number = 0;
  int nth = 1;           ///< since the program began
  std::string how;       ///< `short`, `torn`: short, and killed right after it; `late`: done, and then it fails
  std::uint64_t by = 0;  ///< the bytes that it is asked for instead, or the error's number
};

class Tracee {
 public:
  explicit Tracee(pid_t pid) : pid_(pid) {}

  /// For the next stop, or the end: then true.
  bool wait() {
    if (::waitpid(pid_, &status_, 0) < 0) fail("waitpid");
    return WIFEXITED(status_) || WIFSIGNALED(status_);
  }
  /// With which it ended, as a shell has it.
  [[nodiscard]] int status() const noexcept {
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }
  [[nodiscard]] bool in_call() const noexcept { return WIFSTOPPED(status_) && WSTOPSIG(status_) == (SIGTRAP | 0x80); }
  [[nodiscard]] bool has_begun() const noexcept { return status_ >> 8 == (SIGTRAP | (PTRACE_EVENT_EXEC << 8)); }

  void set_options() const {
    if (::ptrace(PTRACE_SETOPTIONS, pid_, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL) < 0) {
      fail("PTRACE_SETOPTIONS");
    }
  }
  /// To the next entry or exit of a call. What a signal stopped gets that signal.
  void go_on() const {
    const bool is_signal =
        WIFSTOPPED(status_) && (WSTOPSIG(status_) & ~0x80) != SIGTRAP && WSTOPSIG(status_) != SIGSTOP;
    if (::ptrace(PTRACE_SYSCALL, pid_, 0, is_signal ? WSTOPSIG(status_) : 0) < 0) fail("PTRACE_SYSCALL");
  }
  [[nodiscard]] __ptrace_syscall_info call() const {
    __ptrace_syscall_info info{};
    if (::ptrace(PTRACE_GET_SYSCALL_INFO, pid_, sizeof(info), &info) < 0) fail("PTRACE_GET_SYSCALL_INFO");
    return info;
  }
  template <class Change>
  void change(Change&& change) const {
    user_regs_struct registers{};
    iovec where{&registers, sizeof(registers)};
    if (::ptrace(PTRACE_GETREGSET, pid_, NT_PRSTATUS, &where) < 0) fail("PTRACE_GETREGSET");
    change(registers);
    if (::ptrace(PTRACE_SETREGSET, pid_, NT_PRSTATUS, &where) < 0) fail("PTRACE_SETREGSET");
  }
  int kill() {
    ::kill(pid_, SIGKILL);
    while (!wait()) {
    }
    return status();
  }

 private:
  [[noreturn]] static void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

  pid_t pid_;
  int status_ = 0;
};

/// Ends as the program does; says `hit` where the call was bent.
int run(const Bend& bend, Tracee tracee) {
  tracee.wait();
  tracee.set_options();
  bool begun = false;
  bool bending = false;
  int seen = 0;
  for (tracee.go_on(); !tracee.wait(); tracee.go_on()) {
    begun = begun || tracee.has_begun();
    if (!begun || !tracee.in_call()) continue;
    const auto call = tracee.call();
    if (call.op == PTRACE_SYSCALL_INFO_ENTRY) {
      bending = call.entry.nr == bend.number && ++seen == bend.nth;
      if (bending && bend.how != "late") tracee.change([&](auto& registers) { third(registers) = bend.by; });
      continue;
    }
    if (!std::exchange(bending, false)) continue;
    // One that failed by itself was not bent.
    const std::int64_t done = call.exit.rval;
    const bool is_hit = bend.how == "late" ? done >= 0 : done > 0 && static_cast<std::uint64_t>(done) <= bend.by;
    if (is_hit) std::cerr << "hit: " << done << std::endl;
    if (bend.how == "late") tracee.change([&](auto& registers) { result(registers) = -bend.by; });
    if (bend.how == "torn") return tracee.kill();
  }
  return tracee.status();
}

}  // namespace

int main(int count, char** arguments) {
  const std::vector<std::string> words(arguments, arguments + count);
  if (words.size() < 6 || !numbers.contains(words[1])) {
    std::cerr << "usage: bend CALL NTH short|torn BYTES PROGRAM [ARGUMENT...]\n"
                 "       bend CALL NTH late ERRNO PROGRAM [ARGUMENT...]\n"
                 "CALL: close, getdents64, pread64, pwrite64, read\n";
    return 2;
  }
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::ptrace(PTRACE_TRACEME, 0, 0, 0);
    ::raise(SIGSTOP);
    ::execv(arguments[5], arguments + 5);
    ::_exit(127);
  }
  try {
    return run({numbers.at(words[1]), std::stoi(words[2]), words[3], std::stoull(words[4])}, Tracee(pid));
  } catch (const std::exception& error) {
    std::cerr << "bend: " << error.what() << '\n';
    return 2;
  }
}
