// Products of weights with a right-hand side, for a block of rows and all tiles of columns.
#pragma once

#include "tiles/plan.h"

namespace sinkdiv::SINKDIV_ISA {

// Adds W V to sums (ROWS, k) for weights W (ROWS, width) and a wide V (width, stride): a small
// matrix product.
template <class T>
inline void add_wide_product(const T* w, int64_t width, const T* v, int64_t stride, int64_t count,
                             int rows, int64_t k, double* sums) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t l = 0; l < stride; l += VECTORS * LANES) {
        Vector<T> sum[ROWS][VECTORS] = {};
        for (int64_t j = 0; j < count; ++j) {
            Vector<T> values[VECTORS];
            for (int c = 0; c < VECTORS; ++c) values[c] = load(v + j * stride + l + c * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r) {
                const Vector<T> weight = fill(w[r * width + j]);
#pragma GCC unroll 8
                for (int c = 0; c < VECTORS; ++c) sum[r][c] += weight * values[c];
            }
        }
        const int64_t wanted = k - l < VECTORS * LANES ? k - l : VECTORS * LANES;
        for (int r = 0; r < rows; ++r) {
            T partial[VECTORS * LANES];
            for (int c = 0; c < VECTORS; ++c) store(partial + c * LANES, sum[r][c]);
            double* const into = sums + r * k + l;
            for (int64_t e = 0; e < wanted; ++e) into[e] += double(partial[e]);
        }
    }
}

// Sums over the tiles of W V, or of sum_j w_ij (x_i - v_j) where `points` holds the x_i (n, k), for
// a block of rows.
template <class T>
struct BlockSums {
    const Operand<T>& v;
    const T* points;
    const Rows<T>& range;
    double* sums;  // (BLOCK, k), then the row sums of the weights, for wide differences

    BlockSums(const Operand<T>& operand, const T* own, const Rows<T>& rows, double* memory)
        : v(operand), points(own), range(rows), sums(memory) {
        for (int64_t e = 0; e < BLOCK * (v.k + 1); ++e) sums[e] = 0;
    }

    // Adds the weights (ROWS, width) of a group of rows with a tile.
    void add(const CostTiles<T>& tiles, int64_t tile, int64_t row, int rows, const T* weights) {
        const int64_t begin = range.begin;
        if (v.stride == 0) {
            for (int r = 0; r < rows; ++r, weights += tiles.width)
                for (int64_t l = 0; l < v.k; ++l) {
                    const T* values = v.values + (tile * v.k + l) * tiles.width;
                    sums[(row + r - begin) * v.k + l] +=
                        double(points ? dot_difference(weights, points[(row + r) * v.k + l], values,
                                                       tiles.width)
                                      : dot(weights, values, tiles.width));
                }
        } else {
            const int64_t left = tiles.m - tile * tiles.width,
                          count = left < tiles.width ? left : tiles.width;
            if (v.values)
                add_wide_product(weights, tiles.width, v.values + tile * tiles.width * v.stride,
                                 v.stride, count, rows, v.k, sums + (row - begin) * v.k);
            double* const masses = sums + BLOCK * v.k + row - begin;
            if (points)
                for (int r = 0; r < rows; ++r)
                    masses[r] += double(total(weights + r * tiles.width, tiles.width));
        }
    }

    double result(int64_t i, int64_t l) const {
        const int64_t begin = range.begin;
        const double sum = sums[(i - begin) * v.k + l];
        return points && v.stride
                   ? sums[BLOCK * v.k + i - begin] * double(points[i * v.k + l]) - sum
                   : sum;
    }

    void write(double factor, T* out) const {
        for (int64_t i = range.begin; i < range.end; ++i)
            for (int64_t l = 0; l < v.k; ++l) out[i * v.k + l] = T(factor * result(i, l));
    }
};

}  // namespace sinkdiv::SINKDIV_ISA
