// Batches of small problems, as Python describes them, and their solve on several threads.
#pragma once

#include "batches/call.h"
#include "small/problem.h"

namespace sinkdiv {

SINKDIV_IN_EACH_SET(template <class T>
                    int64_t small_memory(int64_t n, int64_t m, int64_t d, int64_t width);  // bytes
                    template <class T>
                    void solve_small(const SmallProblem<T>&, char* memory, Cancelled);)

// A batch of small problems, with the addresses of their weights, starts and results. A start may
// be null, and so may `gradient` (B, n, d). The other results of a problem lie together, one
// problem after the other: f (n), raw_f (n), g (m), raw_g (m), error, value, spread; without g and
// raw_g where the problem is symmetric.
struct SmallBatch {
    Batch problems;
    const double* eps;  // (B)
    double rho_f, rho_g;
    bool symmetric;
    Address a, b, start, results, passes, history, gradient;
    int64_t checks;  // entries of the history of each problem

    int64_t result_size() const { return 2 * problems.n + (symmetric ? 0 : 2 * problems.m) + 3; }
};

// A bound of max C - min C that is close enough to begin an annealing: the extent of the box around
// all points.
template <class T>
double spread(const Batch& batch, int64_t b) {
    const T* x = entries<const T>(batch.x, b * batch.n * batch.d);
    if (batch.matrix()) {
        const auto [least, most] = std::minmax_element(x, x + batch.n * batch.m);
        return double(*most) - double(*least);
    }
    const T* y = entries<const T>(batch.y, b * batch.m * batch.d);
    const int64_t d = batch.d;
    std::vector<T> box(2 * d);
    T* __restrict least = box.data();
    T* __restrict most = least + d;
    std::copy(x, x + d, least), std::copy(x, x + d, most);
    const auto include = [&](const T* __restrict points, int64_t count) {
        for (int64_t i = 0; i < count; ++i)
            for (int64_t k = 0; k < d; ++k) {
                const T value = points[i * d + k];
                least[k] = value < least[k] ? value : least[k];
                most[k] = value > most[k] ? value : most[k];
            }
    };
    include(x, batch.n), include(y, batch.m);
    double square = 0;
    for (int64_t k = 0; k < batch.d; ++k)
        square += (double(most[k]) - least[k]) * (double(most[k]) - least[k]);
    return batch.euclidean ? std::sqrt(square) : square;
}

// One batch, ready to be solved.
template <class T>
class SmallBatchSolver {
  public:
    SmallBatchSolver(const SmallBatch& batch, double tol, int64_t max_passes)
        : batch_(batch),
          tol_(tol),
          max_passes_(max_passes),
          scale_(scales(batch)),
          packed_(batch.problems, scale_.data()) {
        // A narrow operand is packed like columns; a wide one has rows of its own.
        if (batch.gradient && batch.problems.d > PackedOperand<T>::NARROW)
            wide_ = std::make_unique<PackedOperand<T>>(batch.problems.y, batch.problems.batch,
                                                       batch.problems.m, batch.problems.d,
                                                       packed_.width(), packed_.padded());
    }

    int64_t memory() const {
        return SINKDIV_IN_CHOSEN_SET(small_memory<T>(batch_.problems.n, batch_.problems.m,
                                                     batch_.problems.d, packed_.width()));
    }

    int threads(int64_t work) const { return packed_.threads(work); }

    void solve(int64_t b, char* memory, Cancellation& cancellation) const {
        const int64_t n = batch_.problems.n, m = batch_.problems.m;
        T* const f = entries<T>(batch_.results, b * batch_.result_size());
        T* const raw_f = f + n;
        T* const g = batch_.symmetric ? f : raw_f + n;
        T* const raw_g = batch_.symmetric ? raw_f : g + m;
        T* const numbers = raw_g + m;
        const double extent = spread<T>(batch_.problems, b);
        numbers[2] = T(extent);
        T* const gradient = entries<T>(batch_.gradient);
        const SmallProblem<T> problem{
            packed_.tiles(b),
            input(batch_.a, b, n),
            input(batch_.b, b, m),
            batch_.eps[b],
            batch_.rho_f,
            batch_.rho_g,
            extent,
            batch_.symmetric,
            tol_,
            max_passes_,
            input(batch_.start, b, m),
            f,
            g,
            raw_f,
            raw_g,
            numbers,
            numbers + 1,
            entries<int64_t>(batch_.passes, b),
            entries<float>(batch_.history, b * batch_.checks),
            batch_.checks,
            gradient ? gradient + b * n * batch_.problems.d : nullptr,
            wide_ ? (*wide_)[b] : Operand<T>{packed_.tiles(b).y, batch_.problems.d, 0}};
        const Cancelled cancelled{
            [](void* state) { return static_cast<Cancellation*>(state)->cancelled(); },
            &cancellation};
        SINKDIV_IN_CHOSEN_SET(solve_small<T>(problem, memory, cancelled));
    }

  private:
    static std::vector<T> scales(const SmallBatch& batch) {
        std::vector<T> result(batch.problems.batch);
        for (int64_t b = 0; b < batch.problems.batch; ++b) result[b] = T(LOG2E / batch.eps[b]);
        return result;
    }

    static const T* input(Address address, int64_t b, int64_t stride) {
        return address ? entries<const T>(address, b * stride) : nullptr;
    }

    const SmallBatch& batch_;
    double tol_;
    int64_t max_passes_;
    std::vector<T> scale_;
    PackedBatch<T> packed_;
    std::unique_ptr<PackedOperand<T>> wide_;
};

template <class T>
void solve_small(const std::vector<SmallBatch*>& batches, double tol, int64_t max_passes) {
    const nb::gil_scoped_release released;
    std::vector<std::unique_ptr<SmallBatchSolver<T>>> solvers;
    std::vector<std::pair<const SmallBatchSolver<T>*, int64_t>> tasks;
    int64_t memory = 0, work = 0;
    for (const SmallBatch* batch : batches) {
        solvers.push_back(std::make_unique<SmallBatchSolver<T>>(*batch, tol, max_passes));
        memory = std::max(memory, solvers.back()->memory());
        // A solve is some thirty passes, each a quarter of a multiplication with a coordinate or
        // two.
        work += 30 * batch->problems.batch * batch->problems.n * batch->problems.m / 4;
        for (int64_t b = 0; b < batch->problems.batch; ++b)
            tasks.emplace_back(solvers.back().get(), b);
    }
    const int threads = std::min<int>(solvers[0]->threads(work), int(tasks.size()));
    const PerThread<char> memories(threads, memory);
    const bool completed = parallel_for(int64_t(tasks.size()), threads, interrupted,
                                        [&](int64_t task, int thread, Cancellation& cancellation) {
                                            const auto [solver, b] = tasks[size_t(task)];
                                            solver->solve(b, memories[thread], cancellation);
                                        });
    finish(completed);
}

}  // namespace sinkdiv
