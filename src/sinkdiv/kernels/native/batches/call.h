// The frame of a call from Python. It packs a batch, divides its rows among threads and allocates
// memory for each.
#pragma once

#include <nanobind/nanobind.h>

#include "batches/batch.h"
#include "batches/motion.h"
#include "batches/operands.h"
#include "batches/vectors.h"

namespace nb = nanobind;

namespace sinkdiv {

// Whether the interpreter wants the call to end, as after Ctrl-C.
inline bool interrupted() {
    nb::gil_scoped_acquire held;
    return PyErr_CheckSignals() != 0;
}

// Raises what interrupted a loop over tasks, if it was; called while the interpreter is released.
inline void finish(bool completed) {
    if (completed) return;
    nb::gil_scoped_acquire held;
    throw nb::python_error();  // the signal's exception is set
}

// While a Call exists the interpreter is free for other threads.
template <class T>
class Call {
  public:
    Call(const Batch& batch, Address eps) : Call(batch, scales(batch, eps)) {}

    // For costs that are not divided by an eps. At an infinite scale no product is precise enough.
    explicit Call(const Batch& batch)
        : Call(batch, std::vector<T>(batch.batch, std::numeric_limits<T>::infinity())) {}

    const Batch& batch;

    const PackedBatch<T>& packed() const { return packed_; }
    T scale(int64_t b) const { return scales_[b]; }

    // Vectors that belong to the rows, (B, n), or to the columns, (B, m).
    Exponents<T> row_exponents(Address source) const {
        return Exponents<T>(source, batch.batch, batch.n, batch.n);
    }
    Exponents<T> column_exponents(Address source) const {
        return Exponents<T>(source, batch.batch, batch.m, packed_.padded());
    }
    Columns<T> columns(Address source, T padding = T(0)) const {
        return Columns<T>(source, batch.batch, batch.m, packed_.padded(), padding);
    }
    PackedOperand<T> operand(Address source, int64_t k) const {
        return PackedOperand<T>(source, batch.batch, batch.m, k, packed_.width(), packed_.padded());
    }
    PackedMotion<T> motion(Address dx, Address dy) const {
        return PackedMotion<T>(packed_, batch, dx, dy);
    }

    // Room for sums of `size` numbers a row, for each thread.
    PerThread<double> sums(int64_t size) const {
        return PerThread<double>(batch.threads, BLOCK * size);
    }

    // Reduces all blocks of rows of all problems. describe(b, thread) is what the pass is told of
    // problem b.
    template <class Describe>
    void run(Describe describe) const {
        const int64_t blocks = (batch.n + BLOCK - 1) / BLOCK;
        const auto reduce = [&](int64_t task, int thread, Cancellation&) {
            const int64_t b = task / blocks, begin = task % blocks * BLOCK;
            const int64_t end = std::min(begin + BLOCK, batch.n);
            chosen_pass(packed_.tiles(b), describe(b, thread),
                        Rows<T>{begin, end, scratch_[thread]});
        };
        finish(parallel_for(batch.batch * blocks, packed_.workers(), interrupted, reduce));
    }

  private:
    Call(const Batch& given, std::vector<T> scales)
        : batch(given),
          scales_(std::move(scales)),
          packed_(given, scales_.data()),
          scratch_(given.threads, scratch_size<T>(packed_.width())) {}

    static std::vector<T> scales(const Batch& batch, Address eps) {
        std::vector<T> result(batch.batch);
        for (int64_t b = 0; b < batch.batch; ++b)
            result[b] = T(LOG2E / double(entries<const T>(eps)[b]));
        return result;
    }

    nb::gil_scoped_release released_;
    std::vector<T> scales_;
    PackedBatch<T> packed_;
    PerThread<T> scratch_;
};

// What a plan's exponents are made of: u (B, n) and h (B, m) in natural logarithms.
template <class T>
class PlanScores {
  public:
    PlanScores(const Call<T>& call, Address u, Address h)
        : call_(call), rows_(call.row_exponents(u)), columns_(call.column_exponents(h)) {}

    Scores<T> operator[](int64_t b) const { return {rows_[b], columns_[b], call_.scale(b)}; }

  private:
    const Call<T>& call_;
    Exponents<T> rows_, columns_;
};

// Factors s (B, n) and t (B, m) of the plan's entries.
template <class T>
class PlanFactors {
  public:
    PlanFactors(const Call<T>& call, Address s, Address t)
        : n_(call.batch.n), s_(s), columns_(call.columns(t)) {}

    Factors<T> operator[](int64_t b) const { return {entries<const T>(s_, b * n_), columns_[b]}; }

  private:
    int64_t n_;
    Address s_;
    Columns<T> columns_;
};

}  // namespace sinkdiv
