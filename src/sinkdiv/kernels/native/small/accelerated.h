// Solves of problems with two sides: the algorithm of solvers/accelerated.py, whose docstrings say
// why it does what it does. The names are the same.
#pragma once

#include "small/solve.h"

namespace sinkdiv::SINKDIV_ISA {

constexpr int LEVEL_STEPS = 6, PLAIN_STEPS = 64;
constexpr double FIRST = 0.125, LEVEL_ERROR = 0.2, START_ERROR = 1.0;
constexpr double MIX = 1.5, CAP = 8, FALL = 0.1;

// Solves a problem of two sides: annealing, then Anderson's extrapolation of the map g ->
// softmin(softmin(g)), kept safe by the dual value.
template <class T>
class Accelerated : SmallSolve<T> {
    using Base = SmallSolve<T>;
    using Base::arena, Base::columns, Base::problem, Base::rows;

  public:
    Accelerated(const SmallProblem<T>& given, char* memory)
        : Base(given, memory),
          size_(columns.size),
          metric_(arena.template zeros<double>(size_)),
          r_(arena.template zeros<double>(size_)),
          r_ref_(arena.template zeros<double>(size_)),
          move_(arena.template zeros<double>(size_)),
          image_(arena.template zeros<T>(size_)),
          g_ref_(arena.template zeros<T>(size_)),
          image_ref_(arena.template zeros<T>(size_)),
          history_(arena, size_, metric_, true) {
        for (int64_t j = 0; j < size_; ++j) metric_[j] = double(columns.weights[j]) / columns.mass;
        const double unit = sizeof(T) == 4 ? 1.1920929e-7 : 2.220446049250313e-16;
        fall_ = FALL + 4 * unit * problem.spread / problem.eps;
    }

    void run(Cancelled cancelled) {
        T* const g = columns.potential;
        const int64_t steps = problem.max_passes / 2 > 1 ? problem.max_passes / 2 : 1;
        // Steps that may be above the target.
        const int64_t most = problem.max_passes / 4 > 1 ? problem.max_passes / 4 - 1 : 0;
        const int cold = int(first_level() < most ? first_level() : most);
        int level = cold, level_steps = 0;
        if (problem.start) {
            std::memcpy(g, problem.start, columns.count * sizeof(T));
            level = 0;
        }
        double best = __builtin_inf();
        for (int64_t step = 0; step < steps && !cancelled(); ++step) {
            eps_ = problem.eps * double(int64_t(1) << (2 * level));
            const T scale = Base::scale_of(eps_);
            Base::softmin_of_columns(scale);
            if (rows.soft()) translate();
            const T damping_f = T(rows.damping(eps_)), damping_g = T(columns.damping(eps_));
            for (int64_t i = 0; i < rows.size; ++i) rows.potential[i] = rows.raw[i] * damping_f;
            Base::softmin_of_rows(scale);
            for (int64_t j = 0; j < size_; ++j) image_[j] = columns.raw[j] * damping_g;
            const double error = columns.residual(scale);
            *problem.passes = 2 * (step + 1);
            if (step < problem.checks)
                problem.history[step] = level == 0 ? float(error) : __builtin_nanf("");
            if (level == 0) {
                Base::keep_best(error, best);
                if (best <= problem.tol) break;
            }
            const int before = level;
            if (step == 0 && problem.start && !(error <= START_ERROR))
                level = cold;
            else if (level > 0 && (error <= LEVEL_ERROR || level_steps + 1 >= LEVEL_STEPS))
                --level;
            if (step + 1 >= most) level = 0;
            if (level == before) {
                ++level_steps;
                advance();
            } else {
                level_steps = 0;
                reset();
                std::memcpy(g, image_, size_ * sizeof(T));
            }
        }
        Base::report_value();
        Base::differentiate();
    }

  private:
    int first_level() const {
        int level = 0;
        for (double eps = problem.eps; eps < FIRST * problem.spread && level < 31; eps *= 4)
            ++level;
        return level;
    }

    void reset() {
        history_.count = 0;
        referred_ = failed_ = false;
        plain_ = 0, penalty_ = 1;
        last_size_ = 0;
        best_dual_ = -__builtin_inf();
    }

    // Moves to the best constant t in (f - t, g + t), which soft marginals determine. It takes no
    // pass, and removes the mode in which the iteration is slow.
    void translate() {
        T* const f = rows.potential;
        const T damping = T(rows.damping(eps_));
        for (int64_t i = 0; i < rows.size; ++i) f[i] = rows.raw[i] * damping;
        const double excess = (columns.log_target() - rows.log_target()) / LOG2E;
        const double t = excess / (1 / (rows.rho + eps_) + 1 / columns.rho);
        for (int64_t j = 0; j < size_; ++j) columns.potential[j] += T(t);
        for (int64_t i = 0; i < rows.size; ++i) rows.raw[i] -= T(t);
    }

    double dual() {
        if (!rows.soft())
            return (dot_wide(rows.weights, rows.potential, rows.size) +
                    dot_wide(columns.weights, columns.potential, size_)) /
                   (eps_ * rows.mass);
        return (Base::gain(rows.weights, rows.potential, rows.count, rows.rho) *
                    (1 + eps_ / rows.rho) +
                Base::gain(columns.weights, columns.potential, columns.count, columns.rho)) /
               (eps_ * rows.mass);
    }

    void advance() {
        T* const g = columns.potential;
        const double inverse = 1 / eps_;
        for (int64_t j = 0; j < size_; ++j)
            r_[j] = columns.weights[j] > 0 ? (double(image_[j]) - double(g[j])) * inverse : 0;
        const double value = dual();
        if (referred_ && value < best_dual_ - fall_) {  // overshoot
            if (failed_) {                              // twice: plain steps from the reference
                failed_ = false;
                history_.count = 0;
                plain_ = penalty_ - 1,
                penalty_ = 2 * penalty_ < PLAIN_STEPS ? 2 * penalty_ : PLAIN_STEPS;
                last_size_ = 0;
                std::memcpy(g, image_ref_, size_ * sizeof(T));
                return;
            }
            failed_ = true;  // a secant step from the reference
            history_.count = 0;
            take_pair();
            std::memcpy(g, g_ref_, size_ * sizeof(T));
            std::memcpy(image_, image_ref_, size_ * sizeof(T));
            std::memcpy(r_, r_ref_, size_ * sizeof(double));
        } else {
            failed_ = false;
            if (referred_) take_pair();
            std::memcpy(g_ref_, g, size_ * sizeof(T));
            std::memcpy(image_ref_, image_, size_ * sizeof(T));
            std::memcpy(r_ref_, r_, size_ * sizeof(double));
            referred_ = true;
            if (value > best_dual_) best_dual_ = value;
        }
        if (plain_ > 0 || history_.count == 0) {
            if (plain_ > 0) --plain_, last_size_ = 0;
            std::memcpy(g, image_, size_ * sizeof(T));
            return;
        }
        extrapolate();
    }

    void take_pair() {
        double* const dr = history_.dr[history_.count];
        double* const dx = history_.dx[history_.count];
        for (int64_t j = 0; j < size_; ++j) dr[j] = r_[j] - r_ref_[j];
        for (int64_t j = 0; j < size_; ++j) dx[j] = double(image_[j]) - double(image_ref_[j]);
        history_.append();
    }

    void extrapolate() {
        T* const g = columns.potential;
        double coefficients[DEPTH];
        history_.solve(r_, coefficients);
        const double extra = (MIX - 1) * eps_;
        for (int64_t j = 0; j < size_; ++j)
            move_[j] = double(image_[j]) - double(g[j]) + extra * r_[j];
        for (int k = 0; k < history_.count; ++k) {
            const double *dr = history_.dr[k], *dx = history_.dx[k], c = coefficients[k];
            for (int64_t j = 0; j < size_; ++j) move_[j] -= c * (dx[j] + extra * dr[j]);
        }
        const double length = __builtin_sqrt(positive(history_.inner(move_, move_))) / eps_;
        const double step = __builtin_sqrt(positive(history_.inner(r_, r_)));
        const double limit =
            failed_ ? last_size_ / 2 : CAP * (step > last_size_ ? step : last_size_);
        const double shrink = length > limit ? limit / length : 1;
        last_size_ = length * shrink;
        for (int64_t j = 0; j < size_; ++j)
            g[j] = columns.weights[j] > 0 ? g[j] + T(shrink * move_[j]) : image_[j];
    }

    static double positive(double x) { return x > 0 ? x : 0; }

    int64_t size_;
    double *metric_, *r_, *r_ref_, *move_;
    T *image_, *g_ref_, *image_ref_;
    History history_;
    double eps_ = 0, fall_ = 0, last_size_ = 0, best_dual_ = -__builtin_inf();
    bool referred_ = false, failed_ = false;
    int plain_ = 0, penalty_ = 1;
};

}  // namespace sinkdiv::SINKDIV_ISA
