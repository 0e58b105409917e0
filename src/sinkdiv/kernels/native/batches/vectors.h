// Vectors of rows and columns, as Python gives them, brought to the form that passes read.
#pragma once

#include "batches/batch.h"

namespace sinkdiv {

constexpr double LOG2E = 1.4426950408889634074;

// Exponents (B, n) or (B, m) in natural logarithms, brought to base 2 and padded.
template <class T>
class Exponents {
  public:
    Exponents(Address source, int64_t batch, int64_t count, int64_t padded)
        : padded_(padded), data_(batch * padded) {
        const T* from = entries<const T>(source);
        for (int64_t b = 0; b < batch; ++b) {
            T* to = data_.data() + b * padded;
            for (int64_t j = 0; j < count; ++j)
                to[j] = std::max(T(from[b * count + j] * T(LOG2E)), T(LOWEST));
            std::fill(to + count, to + padded, T(LOWEST));
        }
    }
    const T* operator[](int64_t b) const { return data_.data() + b * padded_; }

  private:
    int64_t padded_;
    Buffer<T> data_;
};

// Column vectors (B, m) padded with zeros or what else is given.
template <class T>
class Columns {
  public:
    Columns(Address source, int64_t batch, int64_t count, int64_t padded, T padding = T(0))
        : padded_(padded), data_(batch * padded) {
        const T* from = entries<const T>(source);
        for (int64_t b = 0; b < batch; ++b) {
            T* to = data_.data() + b * padded;
            std::copy(from + b * count, from + (b + 1) * count, to);
            std::fill(to + count, to + padded, padding);
        }
    }
    const T* operator[](int64_t b) const { return data_.data() + b * padded_; }

  private:
    int64_t padded_;
    Buffer<T> data_;
};

}  // namespace sinkdiv
