// A loop over independent tasks on a few threads, which the interpreter can interrupt.
//
// Threads are started for each loop that is worth them and joined at its end: nothing outlives a call, so that forked
// processes, other thread pools and the caller's settings are left alone.
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

// Runs task(index, thread) for each index < count. False if it was interrupted, with some tasks not done.
template <class Task>
bool parallel_for(int64_t count, int threads, Interrupted interrupted, Task task) {
    using Clock = std::chrono::steady_clock;
    constexpr auto PATIENCE = std::chrono::milliseconds(50);
    std::atomic<int64_t> next{0};
    std::atomic<bool> cancelled{false};
    auto work = [&](int thread, bool asks) {
        auto asked = Clock::now();
        for (int64_t index; !cancelled && (index = next++) < count;) {
            task(index, thread);
            if (!asks) continue;
            const auto now = Clock::now();
            if (now - asked < PATIENCE) continue;
            asked = now;
            if (interrupted()) cancelled = true;
        }
    };
    if (threads > count) threads = int(count);
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; ++thread) {
        try {
            others.emplace_back(work, thread, false);
        } catch (const std::exception&) {
            break;  // no more threads to be had: those that run do the work
        }
    }
    work(0, true);
    for (auto& other : others) other.join();
    return !cancelled;
}

}  // namespace sinkdiv
