// Whole solves of small problems, one problem a thread: the algorithms of solvers/accelerated.py and
// solvers/symmetric.py, on a cost matrix that stays in the processor's cache. Their docstrings say why they do what they
// do here; the names are the same.
#pragma once

#include "passes.h"

namespace sinkdiv::SINKDIV_ISA {

constexpr int DEPTH = 8, KEPT = 2, LEVEL_STEPS = 6, PLAIN_STEPS = 64;
constexpr double FIRST = 0.125, LEVEL_ERROR = 0.2, START_ERROR = 1.0, MIX = 1.5, SELF_MIX = 0.5, CAP = 8, FALL = 0.1, RIDGE = 1e-8;
constexpr double LOG2E = 1.4426950408889634074;
constexpr int64_t PADDING = 32;  // entries: two vectors of any type

inline int64_t padded(int64_t count) { return (count + PADDING - 1) / PADDING * PADDING; }

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

// sum w_j u_j v_j over padded arrays
inline double dot3(const double* w, const double* u, const double* v, int64_t count) {
    constexpr int LANES = Simd<double>::LANES;
    DoubleVector sum0 = {}, sum1 = {};
    for (int64_t j = 0; j < count; j += 2 * LANES) {
        sum0 += load(w + j) * load(u + j) * load(v + j);
        sum1 += load(w + j + LANES) * load(u + j + LANES) * load(v + j + LANES);
    }
    return sum<double>(sum0 + sum1);
}

template <class T>
inline double dot_wide(const T* a, const T* b, int64_t count) {
    double lanes[8] = {};  // independent sums, which the compiler puts into vectors
    for (int64_t j = 0; j < count; j += 8)
        for (int l = 0; l < 8; ++l) lanes[l] += double(a[j + l]) * double(b[j + l]);
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

template <class T>
inline double total_wide(const T* a, int64_t count) {
    double lanes[8] = {};
    for (int64_t j = 0; j < count; j += 8)
        for (int l = 0; l < 8; ++l) lanes[l] += double(a[j + l]);
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// a_j 2^(x_j), over padded arrays; a weight of zero stays zero
template <class T>
inline void weighted_exp2(const T* a, const T* x, int64_t count, T* out) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t j = 0; j < count; j += LANES) store(out + j, load(a + j) * exp2_or_zero<T>(load(x + j)));
}

// One side of a problem: its weights and its potentials, padded with weights of zero.
template <class T>
struct Side {
    int64_t count, size;  // entries, and with padding
    T *weights, *log_weights, *potential, *raw, *exponents, *tops, *sums, *work;
    double mass, rho;

    Side(Arena& arena, const T* given, int64_t entries, double strength)
        : count(entries), size(padded(entries)), rho(strength) {
        T** const arrays[] = {&weights, &log_weights, &potential, &raw, &exponents, &tops, &sums, &work};
        for (T** array : arrays) *array = arena.zeros<T>(size);
        std::memcpy(weights, given, count * sizeof(T));
        constexpr T TINY = sizeof(T) == 4 ? T(1.2e-38) : T(2.3e-308);  // the least normal number
        for (int64_t j = 0; j < size; j += Simd<T>::LANES)
            store(log_weights + j, log2_positive<T>(larger(load(weights + j), fill(TINY))));
        for (int64_t j = 0; j < size; ++j)
            if (!(weights[j] > 0)) log_weights[j] = T(LOWEST);
        mass = total_wide(weights, size);
    }

    bool soft() const { return rho < __builtin_inf(); }
    double damping(double eps) const { return 1 / (1 + eps / rho); }

    // What the potential sends to the other side: log weights + potential / eps, in base 2.
    void send(T scale) {
        for (int64_t j = 0; j < size; ++j)
            exponents[j] = weights[j] > 0 ? log_weights[j] + potential[j] * scale : T(LOWEST);
    }

    // The wanted marginal, weights * exp(-potential / rho), in units of its largest entry: it may be beyond the range of
    // T. Left in `work`; returns its sum, and in `top` the unit's logarithm (base 2).
    double target(double& top) {
        if (!soft()) {
            std::memcpy(work, weights, size * sizeof(T));
            top = 0;
            return mass;
        }
        const T rate = T(-LOG2E / rho);
        T most = T(LOWEST);
        for (int64_t j = 0; j < size; ++j) {
            exponents[j] = weights[j] > 0 ? log_weights[j] + potential[j] * rate : T(LOWEST);
            most = exponents[j] > most ? exponents[j] : most;
        }
        for (int64_t j = 0; j < size; ++j) exponents[j] -= most, work[j] = T(1);
        weighted_exp2(work, exponents, size, work);
        top = most;
        return total_wide(work, size);
    }

    // The logarithm (base 2) of the wanted marginal's mass.
    double log_target() {
        double top;
        const double total = target(top);
        return top + __builtin_log2(total);
    }

    // The relative L1 distance of the plan's marginal from its target; destroys `exponents` and `sums`.
    double residual(T scale) {
        double top;
        const double wanted = target(top);
        const T rate = soft() ? T(LOG2E / rho) : T(0);
        for (int64_t j = 0; j < size; ++j) exponents[j] = (potential[j] - raw[j]) * scale + potential[j] * rate;
        weighted_exp2(work, exponents, size, sums);
        for (int64_t j = 0; j < size; ++j) sums[j] = T(__builtin_fabs(double(sums[j]) - double(work[j])));
        return total_wide(sums, size) / wanted;
    }
};

// raw = -eps log(2^top * sum), from what a sweep left in tops and sums.
template <class T>
void finish_softmin(Side<T>& side, T scale) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t i = side.count; i < side.size; ++i) side.tops[i] = 0, side.sums[i] = 1;
    const T unit = T(-1) / scale;
    for (int64_t i = 0; i < side.size; i += LANES)
        store(side.raw + i, unit * (load(side.tops + i) + log2_positive<T>(load(side.sums + i))));
}

// The softmin over the columns of stored costs (rows, width), for h in base 2: each row is swept twice.
template <class T>
void softmin_along_rows(const T* costs, int64_t width, const T* h, T scale, T* row_buffer, Side<T>& side) {
    for (int64_t i = 0; i < side.count; ++i) {
        T top = T(LOWEST);
        double total = 0;
        add_tile(costs + i * width, row_buffer, h, scale, width, top, total);
        side.tops[i] = top;
        side.sums[i] = T(total);
    }
    finish_softmin(side, scale);
}

// The softmin over the rows of stored costs (rows, width): two vectors of columns are swept twice at a time.
template <class T>
void softmin_along_columns(const T* costs, int64_t rows, int64_t width, const T* u, T scale, Side<T>& side) {
    constexpr int LANES = Simd<T>::LANES;
    constexpr int64_t RUN = 128;  // terms added in a row, so that long sums keep their digits
    for (int64_t j = 0; j < width; j += 2 * LANES) {
        const T* c = costs + j;
        Vector<T> top0 = fill(T(LOWEST)), top1 = top0;
        for (int64_t i = 0; i < rows; ++i) {
            const Vector<T> own = fill(u[i]);
            top0 = larger(top0, score(load(c + i * width), own, scale));
            top1 = larger(top1, score(load(c + i * width + LANES), own, scale));
        }
        Vector<T> sum0 = {}, sum1 = {};
        for (int64_t start = 0; start < rows; start += RUN) {
            Vector<T> run0 = {}, run1 = {};
            for (int64_t i = start; i < (start + RUN < rows ? start + RUN : rows); ++i) {
                const Vector<T> own = fill(u[i]);
                run0 += exp2_relative<T>(score(load(c + i * width), own, scale) - top0);
                run1 += exp2_relative<T>(score(load(c + i * width + LANES), own, scale) - top1);
            }
            sum0 += run0, sum1 += run1;
        }
        store(side.tops + j, top0), store(side.tops + j + LANES, top1);
        store(side.sums + j, sum0), store(side.sums + j + LANES, sum1);
    }
    finish_softmin(side, scale);
}

// The pairs of differences that an Anderson step combines, and the least squares on them.
class History {
  public:
    History(Arena& arena, int64_t size, const double* metric, bool centred)
        : metric_(metric), size_(size), centred_(centred) {
        for (int k = 0; k < DEPTH; ++k) dr[k] = arena.zeros<double>(size), dx[k] = arena.zeros<double>(size);
    }

    int count = 0;
    double *dr[DEPTH], *dx[DEPTH];

    double inner(const double* u, const double* v) const {
        const double product = dot3(metric_, u, v, size_);
        return centred_ ? product - mean(u) * mean(v) : product;
    }

    // dr[count] and dx[count] have been written: take them in.
    void append() {
        for (int k = 0; k <= count; ++k) gram_[k][count] = gram_[count][k] = inner(dr[k], dr[count]);
        if (++count < DEPTH) return;
        for (int k = 0; k < KEPT; ++k) keep(count - KEPT + k, k);
        count = KEPT;
    }

    // Coefficients of the pairs that, taken from r, leave the least; all zero if there are none.
    void solve(const double* r, double* coefficients) const {
        double factor[DEPTH][DEPTH], trace = 0;
        for (int k = 0; k < count; ++k) trace += gram_[k][k], coefficients[k] = inner(dr[k], r);
        if (!(trace > 0)) {
            for (int k = 0; k < count; ++k) coefficients[k] = 0;
            return;
        }
        const double ridge = RIDGE * trace;
        for (int k = 0; k < count; ++k)  // Cholesky
            for (int l = 0; l <= k; ++l) {
                double entry = gram_[k][l] + (k == l ? ridge : 0);
                for (int e = 0; e < l; ++e) entry -= factor[k][e] * factor[l][e];
                factor[k][l] = k == l ? __builtin_sqrt(entry > ridge / 1000 ? entry : ridge / 1000) : entry / factor[l][l];
            }
        for (int k = 0; k < count; ++k) {
            for (int e = 0; e < k; ++e) coefficients[k] -= factor[k][e] * coefficients[e];
            coefficients[k] /= factor[k][k];
        }
        for (int k = count - 1; k >= 0; --k) {
            for (int e = k + 1; e < count; ++e) coefficients[k] -= factor[e][k] * coefficients[e];
            coefficients[k] /= factor[k][k];
        }
    }

  private:
    double mean(const double* u) const {
        constexpr int LANES = Simd<double>::LANES;
        DoubleVector total = {};
        for (int64_t j = 0; j < size_; j += LANES) total += load(metric_ + j) * load(u + j);
        return sum<double>(total);
    }

    void keep(int from, int to) {
        double* r = dr[to];
        double* x = dx[to];
        dr[to] = dr[from], dx[to] = dx[from], dr[from] = r, dx[from] = x;
        for (int k = 0; k < DEPTH; ++k) gram_[to][k] = gram_[from][k];
        for (int k = 0; k < DEPTH; ++k) gram_[k][to] = gram_[k][from];
    }

    const double* metric_;
    int64_t size_;
    bool centred_;
    double gram_[DEPTH][DEPTH];
};

template <class T>
int64_t small_memory(int64_t n, int64_t m, int64_t d, int64_t width) {
    const int64_t size_n = padded(n), size_m = padded(m), largest_side = size_n > size_m ? size_n : size_m;
    const int64_t entries = n * size_m + 8 * (size_n + size_m) + 4 * largest_side + 2 * ROWS * width;
    const int64_t doubles = (2 * DEPTH + 6) * largest_side + BLOCK * (d + 1);
    const int64_t gradient = scratch_size<T>(width) + m + width;
    return (entries + gradient) * int64_t(sizeof(T)) + doubles * 8 + 64 * 64;
}

// What both solvers share: the stored costs, the two sides, the best iterate.
template <class T>
struct SmallSolve {
    const SmallProblem<T>& problem;
    Arena arena;
    Side<T> rows, columns;
    T *costs, *row_buffer;

    SmallSolve(const SmallProblem<T>& given, char* memory)
        : problem(given),
          arena(memory),
          rows(arena, given.a, given.pairs.n, given.rho_f),
          columns(arena, given.b, given.pairs.m, given.rho_g) {
        const int64_t n = rows.count, m = columns.count;
        *problem.error = T(__builtin_inf());  // until there is an iterate at the target
        std::memset(problem.f, 0, n * sizeof(T)), std::memset(problem.raw_f, 0, n * sizeof(T));
        std::memset(problem.g, 0, m * sizeof(T)), std::memset(problem.raw_g, 0, m * sizeof(T));
        costs = arena.zeros<T>(n * columns.size);
        row_buffer = arena.take<T>(rows.size > columns.size ? rows.size : columns.size);
        const Pairs<T>& p = given.pairs;
        T* buffer = arena.take<T>(2 * ROWS * p.width);
        sweep(p, 0, n, buffer, [&](int64_t tile, int64_t row, int count, T* c) {
            const int64_t from = tile * p.width, left = m - from, kept = left < p.width ? left : p.width;
            for (int r = 0; r < count; ++r)
                std::memcpy(costs + (row + r) * columns.size + from, c + r * p.width, kept * sizeof(T));
        });
    }

    void softmin_of_columns(T scale) {
        columns.send(scale);
        softmin_along_rows(costs, columns.size, columns.exponents, scale, row_buffer, rows);
    }

    void softmin_of_rows(T scale) {
        rows.send(scale);
        softmin_along_columns(costs, rows.count, columns.size, rows.exponents, scale, columns);
    }

    static T scale_of(double eps) { return T(LOG2E / eps); }

    void keep_best(double error, double& best) {
        if (!(error <= best)) return;
        best = error;
        *problem.error = T(error);
        std::memcpy(problem.f, rows.potential, rows.count * sizeof(T));
        std::memcpy(problem.raw_f, rows.raw, rows.count * sizeof(T));
        if (problem.symmetric) return;
        std::memcpy(problem.g, columns.potential, columns.count * sizeof(T));
        std::memcpy(problem.raw_g, columns.raw, columns.count * sizeof(T));
    }

    // The gradient in the rows' points of the best iterate, from the stored costs.
    void differentiate() {
        if (!problem.gradient) return;
        const Pairs<T>& p = problem.pairs;
        const T scale = scale_of(problem.eps);
        std::memcpy(rows.potential, problem.f, rows.count * sizeof(T));
        rows.send(scale);
        std::memcpy(columns.potential, problem.g, columns.count * sizeof(T));
        columns.send(scale);
        const int64_t all = p.tiles() * p.width;
        T* const h = arena.take<T>(all);
        for (int64_t j = 0; j < all; ++j) h[j] = j < columns.count ? columns.exponents[j] : T(LOWEST);
        Pairs<T> stored = p;
        stored.x = costs, stored.d = columns.size, stored.form = Form::matrix;
        const Product what = p.form == Form::distance ? Product::gradient_of_distance : Product::gradient_of_squares;
        T* const scratch = arena.take<T>(scratch_size<T>(p.width));
        double* const sums = arena.take<double>(BLOCK * (p.d + 1));
        for (int64_t begin = 0; begin < p.n; begin += BLOCK)
            product(stored, {rows.exponents, h, scale}, problem.operand, what, p.x, begin,
                    begin + BLOCK < p.n ? begin + BLOCK : p.n, scratch, sums, problem.gradient);
    }

    // What the dual gains from a potential (n), in double; see certificate.py.
    static double gain(const T* weights, const T* potential, int64_t count, double rho) {
        double total = 0;
        for (int64_t i = 0; i < count; ++i) {
            const double p = potential[i];
            total += weights[i] * (rho < __builtin_inf() ? -rho * __builtin_expm1(-p / rho) : p);
        }
        return total;
    }

    // The dual value of the best g and of its damped softmin.
    void report_value() {
        const double eps = problem.eps, rho = rows.rho, damping = rows.damping(eps);
        double attained = gain(columns.weights, problem.symmetric ? problem.f : problem.g, columns.count, columns.rho);
        double plan_mass = rows.mass;
        if (rows.soft()) plan_mass = 0;
        for (int64_t i = 0; i < rows.count; ++i) {
            const double f = damping * double(problem.raw_f[i]), weight = rows.weights[i];
            if (!rows.soft()) {
                attained += weight * f;
            } else {
                attained -= weight * rho * __builtin_expm1(-f / rho);
                plan_mass += weight * __builtin_exp(-f / rho);
            }
        }
        *problem.value = T(attained - eps * (plan_mass - rows.mass * columns.mass));
    }
};

// Solves a problem of two sides: annealing, then Anderson's extrapolation of the map g -> softmin(softmin(g)), kept
// safe by the dual value.
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
        const int64_t most = problem.max_passes / 4 > 1 ? problem.max_passes / 4 - 1 : 0;  // steps above the target
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
            if (step < problem.checks) problem.history[step] = level == 0 ? float(error) : __builtin_nanf("");
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
        for (double eps = problem.eps; eps < FIRST * problem.spread && level < 31; eps *= 4) ++level;
        return level;
    }

    void reset() {
        history_.count = 0;
        referred_ = failed_ = false;
        plain_ = 0, penalty_ = 1;
        last_size_ = 0;
        best_dual_ = -__builtin_inf();
    }

    // Moves to the best constant in (f - t, g + t), which soft marginals determine: no pass, and no slow mode.
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
                    dot_wide(columns.weights, columns.potential, size_)) / (eps_ * rows.mass);
        return (Base::gain(rows.weights, rows.potential, rows.count, rows.rho) * (1 + eps_ / rows.rho) +
                Base::gain(columns.weights, columns.potential, columns.count, columns.rho)) / (eps_ * rows.mass);
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
                plain_ = penalty_ - 1, penalty_ = 2 * penalty_ < PLAIN_STEPS ? 2 * penalty_ : PLAIN_STEPS;
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
        for (int64_t j = 0; j < size_; ++j) move_[j] = double(image_[j]) - double(g[j]) + extra * r_[j];
        for (int k = 0; k < history_.count; ++k) {
            const double *dr = history_.dr[k], *dx = history_.dx[k], c = coefficients[k];
            for (int64_t j = 0; j < size_; ++j) move_[j] -= c * (dx[j] + extra * dr[j]);
        }
        const double length = __builtin_sqrt(positive(history_.inner(move_, move_))) / eps_;
        const double step = __builtin_sqrt(positive(history_.inner(r_, r_)));
        const double limit = failed_ ? last_size_ / 2 : CAP * (step > last_size_ ? step : last_size_);
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
            softmin_along_columns(Base::costs, rows.count, size_, rows.exponents, scale, rows);  // C is symmetric
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

template <class T>
void solve_small(const SmallProblem<T>& problem, char* memory, Cancelled cancelled) {
    if (problem.symmetric)
        Symmetric<T>(problem, memory).run(cancelled);
    else
        Accelerated<T>(problem, memory).run(cancelled);
}

}  // namespace sinkdiv::SINKDIV_ISA
