// Anderson's extrapolation: the pairs of differences it combines, and the least squares on them
// (solvers/anderson.py).
#pragma once

#include "machine/simd.h"
#include "small/arena.h"

namespace sinkdiv::SINKDIV_ISA {

constexpr int DEPTH = 8, KEPT = 2;
constexpr double RIDGE = 1e-8;

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

// The pairs of differences that an Anderson step combines, and the least squares on them.
class History {
  public:
    History(Arena& arena, int64_t size, const double* metric, bool centred)
        : metric_(metric), size_(size), centred_(centred) {
        for (int k = 0; k < DEPTH; ++k)
            dr[k] = arena.zeros<double>(size), dx[k] = arena.zeros<double>(size);
    }

    int count = 0;
    double *dr[DEPTH], *dx[DEPTH];

    double inner(const double* u, const double* v) const {
        const double product = dot3(metric_, u, v, size_);
        return centred_ ? product - mean(u) * mean(v) : product;
    }

    // Adds the pair that has been written to dr[count] and dx[count].
    void append() {
        for (int k = 0; k <= count; ++k)
            gram_[k][count] = gram_[count][k] = inner(dr[k], dr[count]);
        if (++count < DEPTH) return;
        for (int k = 0; k < KEPT; ++k) keep(count - KEPT + k, k);
        count = KEPT;
    }

    // Coefficients of the pairs whose combination, subtracted from r, leaves the least. All are
    // zero if the pairs are.
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
                factor[k][l] = k == l ? __builtin_sqrt(entry > ridge / 1000 ? entry : ridge / 1000)
                                      : entry / factor[l][l];
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

}  // namespace sinkdiv::SINKDIV_ISA
