// Results that are sums over rows, which several threads reduce.
#pragma once

#include "batches/call.h"

namespace sinkdiv {

// Sums (B, m) over the rows. Each thread adds to a part of its own.
template <class T>
class ColumnSums {
  public:
    explicit ColumnSums(const Call<T>& call)
        : batch_(call.batch),
          padded_(call.packed().padded()),
          workers_(call.packed().workers()),
          sums_(workers_, batch_.batch * padded_) {
        for (int thread = 0; thread < workers_; ++thread)
            std::fill(sums_[thread], sums_[thread] + batch_.batch * padded_, 0.0);
    }

    double* of(int64_t b, int thread) const { return sums_[thread] + b * padded_; }

    void write(Address out) const {
        for (int64_t b = 0; b < batch_.batch; ++b)
            for (int64_t j = 0; j < batch_.m; ++j) {
                double total = 0;
                for (int thread = 0; thread < workers_; ++thread) total += of(b, thread)[j];
                entries<T>(out)[b * batch_.m + j] = T(total);
            }
    }

  private:
    const Batch& batch_;
    int64_t padded_;
    int workers_;
    PerThread<double> sums_;
};

// Sums (B,) of what the rows contribute (B, n), perhaps weighted.
template <class T>
class RowTotals {
  public:
    explicit RowTotals(const Batch& batch) : batch_(batch), rows_(batch.batch * batch.n) {}

    double* of(int64_t b) const { return rows_.data() + b * batch_.n; }

    // `weights` (B, n) may be null.
    void write(Address out, Address weights = 0) const {
        for (int64_t b = 0; b < batch_.batch; ++b) {
            double total = 0;
            for (int64_t i = 0; i < batch_.n; ++i) {
                const double row = of(b)[i];
                total += weights ? double(entries<const T>(weights)[b * batch_.n + i]) * row : row;
            }
            entries<T>(out)[b] = T(total);
        }
    }

  private:
    const Batch& batch_;
    Buffer<double> rows_;
};

}  // namespace sinkdiv
