// SPDX-License-Identifier: BSL-1.0
//
// A program that a test starts, hears the output of, and ends.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace garner::test {

/// Thread-safety: none. The destructor kills the program.
class Child {
 public:
  /// The first of `words` is found as a shell finds it.
  Child(std::vector<std::string> words, const std::filesystem::path& directory) {
    std::array<int, 2> output{};
    if (::pipe2(output.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, directory.c_str());
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const int error = ::posix_spawnp(&process_, arguments.front(), &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(output[1]);
    output_ = output[0];
    if (error != 0) throw std::runtime_error(words.front() + " does not start");
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (process_ > 0) {
      ::kill(process_, SIGKILL);
      ::waitpid(process_, nullptr, 0);
    }
    ::close(output_);
  }

  /// What it says next; empty where it has ended.
  std::string read_line() {
    std::string line;
    char c = 0;
    while (::read(output_, &c, 1) == 1 && c != '\n') line += c;
    return line;
  }
  /// What it says after `word`, in the first line that has it.
  std::string read_after(const std::string& word) {
    for (std::string line = read_line(); !line.empty(); line = read_line()) {
      if (const std::size_t at = line.find(word); at != std::string::npos) return line.substr(at + word.size());
    }
    throw std::runtime_error("a server does not listen");
  }

 private:
  pid_t process_ = -1;
  int output_ = -1;
};

}  // namespace garner::test
