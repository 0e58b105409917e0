// Memory for one solve, handed out in pieces.
#pragma once

#include <cstdint>
#include <cstring>

namespace sinkdiv::SINKDIV_ISA {

// Hands out pieces of one block of memory, each aligned to a cache line.
class Arena {
  public:
    explicit Arena(char* memory) : next_(memory) {}
    template <class U>
    U* take(int64_t count) {
        U* piece = reinterpret_cast<U*>(next_);
        next_ += (count * int64_t(sizeof(U)) + 63) / 64 * 64;
        return piece;
    }
    template <class U>
    U* zeros(int64_t count) {
        U* piece = take<U>(count);
        std::memset(piece, 0, count * sizeof(U));
        return piece;
    }
    char* next() const { return next_; }

  private:
    char* next_;
};

}  // namespace sinkdiv::SINKDIV_ISA
