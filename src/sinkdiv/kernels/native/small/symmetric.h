// Solves of problems between points and themselves: the algorithm of solvers/symmetric.py, whose
// docstrings say why it does what it does. The names are the same.
#pragma once

#include "small/solve.h"

namespace sinkdiv::SINKDIV_ISA {

constexpr double SELF_MIX = 0.5;

// Solves the self problem: Anderson's extrapolation of the averaged map f -> (f + softmin(f)) / 2.
template <class T>
class Symmetric : SmallSolve<T> {
    using Base = SmallSolve<T>;
    using Base::arena, Base::problem, Base::rows;

  public:
    Symmetric(const SmallProblem<T>& given, char* memory)
        : Base(given, memory),
          size_(rows.size),
          metric_(arena.template zeros<double>(size_)),
          r_(arena.template zeros<double>(size_)),
          r_last_(arena.template zeros<double>(size_)),
          f_last_(arena.template zeros<T>(size_)),
          history_(arena, size_, metric_, false) {
        for (int64_t i = 0; i < size_; ++i) metric_[i] = double(rows.weights[i]) / rows.mass;
    }

    void run(Cancelled cancelled) {
        T* const f = rows.potential;
        if (problem.start) std::memcpy(f, problem.start, rows.count * sizeof(T));
        const double eps = problem.eps;
        const T scale = Base::scale_of(eps), damping = T(rows.damping(eps));
        double best = __builtin_inf(), last_error = __builtin_inf();
        bool averaging = false;
        for (int64_t step = 0; step < problem.max_passes && !cancelled(); ++step) {
            rows.send(scale);
            softmin_along_columns(Base::costs, rows.count, size_, rows.exponents, scale,
                                  rows);  // C is symmetric
            for (int64_t i = 0; i < size_; ++i)
                if (!(rows.weights[i] > 0)) f[i] = rows.raw[i] * damping;
            const double error = 2 * rows.residual(scale);
            *problem.passes = step + 1;
            if (step < problem.checks) problem.history[step] = float(error);
            Base::keep_best(error, best);
            if (best <= problem.tol) break;
            averaging = averaging || error > last_error;
            last_error = error;
            advance(eps, damping, averaging, step > 0);
        }
        Base::report_value();
        Base::differentiate();
    }

  private:
    void advance(double eps, T damping, bool averaging, bool has_last) {
        T* const f = rows.potential;
        for (int64_t i = 0; i < size_; ++i)
            r_[i] = rows.weights[i] > 0 ? (double(rows.raw[i] * damping) - double(f[i])) / eps : 0;
        if (has_last && !averaging) {
            double* const dr = history_.dr[history_.count];
            double* const dx = history_.dx[history_.count];
            for (int64_t i = 0; i < size_; ++i) dr[i] = r_[i] - r_last_[i];
            for (int64_t i = 0; i < size_; ++i) dx[i] = double(f[i]) - double(f_last_[i]);
            history_.append();
        }
        std::memcpy(f_last_, f, size_ * sizeof(T));
        std::memcpy(r_last_, r_, size_ * sizeof(double));
        double coefficients[DEPTH];
        const int pairs = averaging ? 0 : history_.count;
        if (pairs > 0) history_.solve(r_, coefficients);
        double* const move = r_;  // r is kept in r_last_
        for (int64_t i = 0; i < size_; ++i) move[i] = SELF_MIX * eps * r_last_[i];
        for (int k = 0; k < pairs; ++k) {
            const double *dr = history_.dr[k], *dx = history_.dx[k], c = coefficients[k];
            for (int64_t i = 0; i < size_; ++i) move[i] -= c * (dx[i] + SELF_MIX * eps * dr[i]);
        }
        for (int64_t i = 0; i < size_; ++i) f[i] += T(move[i]);
    }

    int64_t size_;
    double *metric_, *r_, *r_last_;
    T* f_last_;
    History history_;
};

}  // namespace sinkdiv::SINKDIV_ISA
