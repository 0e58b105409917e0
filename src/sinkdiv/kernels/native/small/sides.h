// One side of a small problem: its weights and its potentials.
#pragma once

#include "machine/simd.h"
#include "small/arena.h"
#include "tiles/cost_tiles.h"

namespace sinkdiv::SINKDIV_ISA {

constexpr double LOG2E = 1.4426950408889634074;
constexpr int64_t PADDING = 32;  // entries: two vectors of any type

inline int64_t padded(int64_t count) { return (count + PADDING - 1) / PADDING * PADDING; }

template <class T>
inline double dot_wide(const T* a, const T* b, int64_t count) {
    double lanes[8] = {};  // independent sums, which the compiler puts into vectors
    for (int64_t j = 0; j < count; j += 8)
        for (int l = 0; l < 8; ++l) lanes[l] += double(a[j + l]) * double(b[j + l]);
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

template <class T>
inline double total_wide(const T* a, int64_t count) {
    double lanes[8] = {};
    for (int64_t j = 0; j < count; j += 8)
        for (int l = 0; l < 8; ++l) lanes[l] += double(a[j + l]);
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// a_j 2^(x_j), over padded arrays; a weight of zero stays zero
template <class T>
inline void weighted_exp2(const T* a, const T* x, int64_t count, T* out) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t j = 0; j < count; j += LANES)
        store(out + j, load(a + j) * exp2_or_zero<T>(load(x + j)));
}

// One side of a problem: its weights and its potentials, padded with weights of zero.
template <class T>
struct Side {
    int64_t count, size;  // entries, and with padding
    T *weights, *log_weights, *potential, *raw, *exponents, *tops, *sums, *work;
    double mass, rho;

    Side(Arena& arena, const T* given, int64_t entries, double strength)
        : count(entries), size(padded(entries)), rho(strength) {
        T** const arrays[] = {&weights,   &log_weights, &potential, &raw,
                              &exponents, &tops,        &sums,      &work};
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

    // The wanted marginal, weights * exp(-potential / rho), in units of its largest entry: it may
    // be beyond the range of T. Left in `work`; returns its sum, and in `top` the unit's logarithm
    // (base 2).
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

    // The relative L1 distance of the plan's marginal from its target. Overwrites `exponents` and
    // `sums`.
    double residual(T scale) {
        double top;
        const double wanted = target(top);
        const T rate = soft() ? T(LOG2E / rho) : T(0);
        for (int64_t j = 0; j < size; ++j)
            exponents[j] = (potential[j] - raw[j]) * scale + potential[j] * rate;
        weighted_exp2(work, exponents, size, sums);
        for (int64_t j = 0; j < size; ++j)
            sums[j] = T(__builtin_fabs(double(sums[j]) - double(work[j])));
        return total_wide(sums, size) / wanted;
    }
};

}  // namespace sinkdiv::SINKDIV_ISA
