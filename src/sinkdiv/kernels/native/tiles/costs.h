// The costs of a tile: a group of ROWS rows with one tile of columns, formed in a buffer that stays
// in the first cache. A reduction consumes the buffer. Sums run in vectors within a tile and in
// double across tiles, so that a float32 sum over a million columns keeps its digits.
#pragma once

#include "machine/simd.h"
#include "tiles/cost_tiles.h"

namespace sinkdiv::SINKDIV_ISA {

// Coordinates whose contributions are added one after the other. Longer sums are made of such runs,
// which keeps two more digits.
constexpr int64_t RUN_OF_COORDINATES = 64;

// Adds the contributions of coordinates [from, to) to ROWS x (VECTORS vectors) of sums.
template <class T, Form FORM>
inline void add_coordinates(const T* const* x, const T* y, int64_t width, int64_t from, int64_t to,
                            Vector<T> (&sum)[ROWS][VECTORS]) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t k = from; k < to; ++k) {
        Vector<T> columns[VECTORS];
        for (int c = 0; c < VECTORS; ++c) columns[c] = load(y + k * width + c * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const Vector<T> own = fill(x[r][k]);
#pragma GCC unroll 8
            for (int c = 0; c < VECTORS; ++c) {
                if constexpr (FORM == Form::squared_product) {
                    sum[r][c] += own * columns[c];
                } else {
                    const Vector<T> difference = own - columns[c];
                    sum[r][c] += difference * difference;
                }
            }
        }
    }
}

template <class T, Form FORM>
inline void group_costs(const CostTiles<T>& tiles, int64_t row, int64_t tile, T* costs) {
    constexpr int LANES = Simd<T>::LANES;
    const T* x[ROWS];
    for (int r = 0; r < ROWS; ++r)
        x[r] = tiles.x + (row + r < tiles.n ? row + r : tiles.n - 1) * tiles.d;
    const T* y = tiles.y + tile * tiles.d * tiles.width;
    for (int64_t j = 0; j < tiles.width; j += VECTORS * LANES) {
        Vector<T> sum[ROWS][VECTORS] = {};
        add_coordinates<T, FORM>(x, y + j, tiles.width, 0,
                                 tiles.d < RUN_OF_COORDINATES ? tiles.d : RUN_OF_COORDINATES, sum);
        for (int64_t from = RUN_OF_COORDINATES; from < tiles.d; from += RUN_OF_COORDINATES) {
            for (int r = 0; r < ROWS; ++r)
                for (int c = 0; c < VECTORS; ++c) {
                    T* const so_far = costs + r * tiles.width + j + c * LANES;
                    store(so_far,
                          from == RUN_OF_COORDINATES ? sum[r][c] : load(so_far) + sum[r][c]);
                    sum[r][c] = Vector<T>{};
                }
            const int64_t to = from + RUN_OF_COORDINATES;
            add_coordinates<T, FORM>(x, y + j, tiles.width, from, to < tiles.d ? to : tiles.d, sum);
        }
        for (int r = 0; r < ROWS; ++r)
            for (int c = 0; c < VECTORS; ++c) {
                T* const result = costs + r * tiles.width + j + c * LANES;
                Vector<T> cost =
                    tiles.d > RUN_OF_COORDINATES ? load(result) + sum[r][c] : sum[r][c];
                if constexpr (FORM == Form::squared_product) {
                    const T square = tiles.x_squares[row + r < tiles.n ? row + r : tiles.n - 1];
                    const Vector<T> squares =
                        square + load(tiles.y_squares + tile * tiles.width + j + c * LANES);
                    cost = larger(squares - T(2) * cost, fill(T(0)));
                }
                if constexpr (FORM == Form::distance) cost = root(cost);
                store(result, cost);
            }
    }
}

template <class T>
inline void matrix_costs(const CostTiles<T>& tiles, int64_t row, int64_t tile, T* costs) {
    const int64_t from = tile * tiles.width, left = tiles.m - from,
                  count = left < tiles.width ? left : tiles.width;
    for (int r = 0; r < ROWS; ++r) {
        const T* own = tiles.x + (row + r < tiles.n ? row + r : tiles.n - 1) * tiles.d + from;
        std::memcpy(costs + r * tiles.width, own, count * sizeof(T));
        for (int64_t j = count; j < tiles.width; ++j) costs[r * tiles.width + j] = 0;
    }
}

// The costs of a group of rows with a tile of columns, (ROWS, width).
template <class T>
inline void any_costs(const CostTiles<T>& tiles, int64_t row, int64_t tile, T* costs) {
    switch (tiles.form) {
        case Form::squared_differences:
            group_costs<T, Form::squared_differences>(tiles, row, tile, costs);
            break;
        case Form::squared_product:
            group_costs<T, Form::squared_product>(tiles, row, tile, costs);
            break;
        case Form::distance: group_costs<T, Form::distance>(tiles, row, tile, costs); break;
        case Form::matrix: matrix_costs(tiles, row, tile, costs); break;
    }
}

// Copies the values of one row with a tile, but for padded columns, to their place in the whole
// row.
template <class T>
inline void copy_row(const CostTiles<T>& tiles, int64_t tile, const T* values, T* whole) {
    const int64_t from = tile * tiles.width, left = tiles.m - from;
    std::memcpy(whole + from, values, (left < tiles.width ? left : tiles.width) * sizeof(T));
}

// Calls reduce(tile, row, rows, costs) for each group of rows and each tile; costs is (ROWS,
// width).
template <class T, class Reduce>
inline void sweep(const CostTiles<T>& tiles, const Rows<T>& range, Reduce reduce) {
    const int64_t count = tiles.count();
    for (int64_t tile = 0; tile < count; ++tile)
        for (int64_t row = range.begin; row < range.end; row += ROWS) {
            any_costs(tiles, row, tile, range.scratch);
            reduce(tile, row, int(range.end - row < ROWS ? range.end - row : ROWS), range.scratch);
        }
}

}  // namespace sinkdiv::SINKDIV_ISA
