// Sums of exponentials over a tile of columns, measured from the largest exponent so far.
#pragma once

#include "tiles/plan.h"

namespace sinkdiv::SINKDIV_ISA {

// Adds one row's costs with a tile, measured from the exact maximum so far. Writes the scores to z,
// which may be where the costs are.
template <class T>
inline void add_tile(const T* costs, T* z, const T* h, T scale, int64_t width, T& top,
                     double& total) {
    constexpr int LANES = Simd<T>::LANES;
    Vector<T> top0 = fill(T(LOWEST)), top1 = top0;
    for (int64_t j = 0; j < width; j += 2 * LANES) {
        const Vector<T> z0 = score(load(costs + j), load(h + j), scale);
        const Vector<T> z1 = score(load(costs + j + LANES), load(h + j + LANES), scale);
        store(z + j, z0), store(z + j + LANES, z1);
        top0 = larger(top0, z0), top1 = larger(top1, z1);
    }
    const T highest = largest<T>(larger(top0, top1));
    if (highest > top) {
        const T drop = top - highest;
        total = drop > Simd<T>::LEAST ? total * __builtin_exp2(double(drop)) : 0.0;
        top = highest;
    }
    Vector<T> sum0 = {}, sum1 = {};
    for (int64_t j = 0; j < width; j += 2 * LANES) {
        sum0 += exp2_relative<T>(load(z + j) - top);
        sum1 += exp2_relative<T>(load(z + j + LANES) - top);
    }
    total += double(sum<T>(sum0 + sum1));
}

// The state of a softmin's rows: the largest score so far, and the sum of 2^(score - largest).
template <class T>
struct Running {
    T* tops;
    double* sums;
};

// Adds a tile for a group of rows in D dimensions without looking for its maximum: scores are
// measured from the largest of earlier tiles. Costs never leave the registers. If a sum comes out
// too large for that, returns false and adds nothing.
template <class T, int D>
inline bool add_tile_without_maximum(const CostTiles<T>& tiles, const T* h, T scale, int64_t row,
                                     int rows, int64_t tile, Running<T> running) {
    constexpr int LANES = Simd<T>::LANES;
    T x[ROWS][D], offsets[ROWS];  // the largest score, as a cost that is added first
    for (int r = 0; r < ROWS; ++r) {
        const int own = r < rows ? r : rows - 1;
        for (int k = 0; k < D; ++k) x[r][k] = tiles.x[(row + own) * D + k];
        offsets[r] = running.tops[own] / scale;
    }
    const T* y = tiles.y + tile * D * tiles.width;
    Vector<T> sums[ROWS] = {};
    for (int64_t j = 0; j < tiles.width; j += LANES) {
        Vector<T> columns[D];
        for (int k = 0; k < D; ++k) columns[k] = load(y + k * tiles.width + j);
        const Vector<T> sent = load(h + j);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            Vector<T> cost = fill(offsets[r]);
#pragma GCC unroll 8
            for (int k = 0; k < D; ++k) {
                const Vector<T> difference = x[r][k] - columns[k];
                cost += difference * difference;
            }
            sums[r] += exp2_guarded<T>(score(cost, sent, scale));
        }
    }
    T totals[ROWS];
    for (int r = 0; r < ROWS; ++r) {
        totals[r] = sum<T>(sums[r]);
        if (!(totals[r] < Simd<T>::HIGH)) return false;
    }
    for (int r = 0; r < rows; ++r) running.sums[r] += double(totals[r]);
    return true;
}

template <class T>
inline bool add_tile_without_maximum(const CostTiles<T>& tiles, const T* h, T scale, int64_t row,
                                     int rows, int64_t tile, Running<T> running) {
    if (tile == 0 || tiles.form != Form::squared_differences) return false;
    switch (tiles.d) {
        case 1: return add_tile_without_maximum<T, 1>(tiles, h, scale, row, rows, tile, running);
        case 2: return add_tile_without_maximum<T, 2>(tiles, h, scale, row, rows, tile, running);
        case 3: return add_tile_without_maximum<T, 3>(tiles, h, scale, row, rows, tile, running);
        case 4: return add_tile_without_maximum<T, 4>(tiles, h, scale, row, rows, tile, running);
        default: return false;
    }
}

}  // namespace sinkdiv::SINKDIV_ISA
