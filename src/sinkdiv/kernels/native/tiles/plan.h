// The plan's entries of one row, from its costs, and sums of them.
#pragma once

#include "tiles/costs.h"

namespace sinkdiv::SINKDIV_ISA {

constexpr double LN2 = 0.69314718055994530942;

template <class T>
inline Vector<T> score(const Vector<T> cost, const Vector<T> h, T scale) {
    return h - scale * cost;
}

// The plan's entries 2^(z_ij + u_i) of one row, over the costs they were made of or beside them.
template <class T>
inline void plan_row(const T* costs, const T* h, T u, T scale, int64_t width, T* plan,
                     T least = Simd<T>::LEAST) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t j = 0; j < width; j += LANES)
        store(plan + j, exp2_or_zero<T>(score(load(costs + j), load(h + j), scale) + u, least));
}

template <class T>
inline void divide_by_distance(const T* distances, int64_t width, T* plan) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t j = 0; j < width; j += LANES) {
        const Vector<T> distance = load(distances + j);
        const auto apart = distance > T(0);  // at coincident points the subgradient 0 is taken
        const Vector<T> quotient = load(plan + j) / (apart ? distance : fill(T(1)));
        store(plan + j, apart ? quotient : fill(T(0)));
    }
}

template <class T>
inline T dot(const T* a, const T* b, int64_t width) {
    constexpr int LANES = Simd<T>::LANES;
    Vector<T> sum0 = {}, sum1 = {};
    for (int64_t j = 0; j < width; j += 2 * LANES) {
        sum0 += load(a + j) * load(b + j);
        sum1 += load(a + j + LANES) * load(b + j + LANES);
    }
    return sum<T>(sum0 + sum1);
}

// sum_j w_j (x - b_j)
template <class T>
inline T dot_difference(const T* w, T x, const T* b, int64_t width) {
    constexpr int LANES = Simd<T>::LANES;
    Vector<T> sum0 = {}, sum1 = {};
    for (int64_t j = 0; j < width; j += 2 * LANES) {
        sum0 += load(w + j) * (x - load(b + j));
        sum1 += load(w + j + LANES) * (x - load(b + j + LANES));
    }
    return sum<T>(sum0 + sum1);
}

template <class T>
inline T total(const T* a, int64_t width) {
    constexpr int LANES = Simd<T>::LANES;
    Vector<T> sum0 = {}, sum1 = {};
    for (int64_t j = 0; j < width; j += 2 * LANES) sum0 += load(a + j), sum1 += load(a + j + LANES);
    return sum<T>(sum0 + sum1);
}

// An entry of the plan from its exponent z, times the sum of factors and its own logarithm; 0 where
// the entry is.
template <class T>
inline Vector<T> weighted_entry(const Vector<T> z, const Vector<T> factors) {
    const Vector<T> entry = exp2_or_zero<T>(z, LEAST_FACTOR<T>);
    return entry * (factors + T(LN2) * larger(z, fill(Simd<T>::LEAST)));
}

// The plan's entries of one row, times s + t_j + log P_j.
template <class T>
inline void weighted_row(const T* costs, const T* h, T u, T scale, T s, const T* t, int64_t width,
                         T* weights) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t j = 0; j < width; j += LANES)
        store(weights + j,
              weighted_entry<T>(score(load(costs + j), load(h + j), scale) + u, s + load(t + j)));
}

}  // namespace sinkdiv::SINKDIV_ISA
