// Ctrl-C as a request: the training loop sees it, saves, and leaves by the front door. POSIX.
#pragma once

#include <signal.h>

#include <atomic>
#include <stdexcept>

namespace examples {

// While it lives, the first SIGINT or SIGTERM only sets a flag; a second one ends the process at
// once, as it would without a guard. The destructor restores the previous handlers. A signal that
// the process was started to ignore (nohup) stays ignored. One guard at a time.
class InterruptGuard {
 public:
  InterruptGuard() {
    if (alive_.exchange(true)) {
      throw std::runtime_error("[InterruptGuard] a guard is alive already, expected one at a time");
    }
    received_ = 0;
    install(SIGINT, previous_int_);
    install(SIGTERM, previous_term_);
  }

  ~InterruptGuard() {
    sigaction(SIGINT, &previous_int_, nullptr);
    sigaction(SIGTERM, &previous_term_, nullptr);
    alive_ = false;
  }

  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  // Any thread may ask.
  bool requested() const { return received_ != 0; }

  // The signal that arrived, 0 if none did; 128 + signal() is the customary exit status.
  int signal() const { return received_; }

 private:
  static void on_signal(int number) {
    if (received_.exchange(number) == 0) return;
    // The handler blocks the signal, so the default action strikes on return from here.
    ::signal(number, SIG_DFL);
    ::raise(number);
  }

  static void install(int number, struct sigaction& previous) {
    struct sigaction action = {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;  // a write that is under way goes on
    sigemptyset(&action.sa_mask);
    sigaction(number, nullptr, &previous);
    if (previous.sa_handler != SIG_IGN) sigaction(number, &action, nullptr);
  }

  static_assert(std::atomic<int>::is_always_lock_free, "a signal handler must not wait for a lock");
  inline static std::atomic<bool> alive_{false};
  inline static std::atomic<int> received_{0};
  struct sigaction previous_int_ = {};
  struct sigaction previous_term_ = {};
};

}  // namespace examples
