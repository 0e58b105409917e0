// A loop over independent tasks on a few threads, which the interpreter can interrupt.
//
// Threads are started for each loop that is worth them and joined at its end: nothing outlives a
// call, so that forked processes, other thread pools and the caller's settings are left alone.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace sinkdiv {

// Returns true if the loop must end; asked now and then by the calling thread.
using Interrupted = bool (*)();

// Whether a thread must stop. The calling thread asks the interpreter, and tells the others.
class Cancellation {
  public:
    Cancellation(std::atomic<bool>& cancelled, Interrupted interrupted)
        : cancelled_(cancelled), interrupted_(interrupted) {}

    bool cancelled() {
        if (cancelled_) return true;
        if (!interrupted_) return false;
        const auto now = Clock::now();
        if (now - asked_ < std::chrono::milliseconds(50)) return false;
        asked_ = now;
        if (interrupted_()) cancelled_ = true;
        return cancelled_;
    }

  private:
    using Clock = std::chrono::steady_clock;
    std::atomic<bool>& cancelled_;
    Interrupted interrupted_;  // null for a thread that must not ask
    Clock::time_point asked_ = Clock::now();
};

// Runs task(index, thread, cancellation) for each index < count. False if it was interrupted, with
// some tasks not done.
template <class Task>
bool parallel_for(int64_t count, int threads, Interrupted interrupted, Task task) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> cancelled{false};
    auto work = [&](int thread, bool asks) {
        Cancellation cancellation(cancelled, asks ? interrupted : nullptr);
        for (int64_t index; !cancellation.cancelled() && (index = next++) < count;)
            task(index, thread, cancellation);
    };
    if (threads > count) threads = int(count);
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; ++thread) {
        try {
            others.emplace_back(work, thread, false);
        } catch (const std::exception&) {
            break;  // no more threads can be started: those that run do the work
        }
    }
    work(0, true);
    for (auto& other : others) other.join();
    return !cancelled;
}

}  // namespace sinkdiv
