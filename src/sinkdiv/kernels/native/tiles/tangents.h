// The tangents of the costs, formed beside the costs themselves, for points that move.
#pragma once

#include "tiles/costs.h"

namespace sinkdiv::SINKDIV_ISA {

// Vectors of a row whose costs and tangents are summed together, in as many registers as costs
// alone.
constexpr int BOTH = VECTORS / 2;

// Adds the contributions of coordinates [from, to) to the sums behind costs and tangents.
template <class T, Form FORM, Moving MOVING>
inline void add_tangent_coordinates(const T* x, const T* dx, const int64_t (&offsets)[ROWS],
                                    const T* y, const T* dy, int64_t width, int64_t from,
                                    int64_t to, Vector<T> (&cost)[ROWS][BOTH],
                                    Vector<T> (&tangent)[ROWS][BOTH]) {
    constexpr int LANES = Simd<T>::LANES;
    // Two moving addresses and fixed offsets: an address for each row would fill the registers.
    x += from, dx += from;
    for (int64_t k = from; k < to; ++k, ++x, ++dx) {
        Vector<T> columns[BOTH], moves[BOTH];
        for (int c = 0; c < BOTH; ++c) {
            columns[c] = load(y + k * width + c * LANES);
            moves[c] = load(dy + k * width + c * LANES);
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const Vector<T> own = fill(x[offsets[r]]), move = fill(dx[offsets[r]]);
#pragma GCC unroll 8
            for (int c = 0; c < BOTH; ++c) {
                if constexpr (FORM == Form::squared_product) {
                    cost[r][c] += own * columns[c];
                    if constexpr (MOVING != Moving::rows) tangent[r][c] += own * moves[c];
                    if constexpr (MOVING != Moving::columns) tangent[r][c] += move * columns[c];
                } else {
                    const Vector<T> difference = own - columns[c];
                    cost[r][c] += difference * difference;
                    if constexpr (MOVING == Moving::both)
                        tangent[r][c] += difference * (move - moves[c]);
                    if constexpr (MOVING == Moving::rows) tangent[r][c] += difference * move;
                    if constexpr (MOVING == Moving::columns) tangent[r][c] -= difference * moves[c];
                }
            }
        }
    }
}

// Costs and tangents of one row with a vector of columns, from their sums over the coordinates.
template <class T, Form FORM>
inline void finish_tangents(const CostTiles<T>& tiles, const Motion<T>& motion, int64_t row,
                            int64_t column, Vector<T>& cost, Vector<T>& tangent) {
    if constexpr (FORM == Form::distance) {
        cost = root(cost);
        tangent /= cost > T(0) ? cost : fill(T(1));  // at coincident points it is 0
    } else if constexpr (FORM == Form::squared_product) {
        cost =
            larger(tiles.x_squares[row] + load(tiles.y_squares + column) - T(2) * cost, fill(T(0)));
        tangent = T(2) * (motion.x_products[row] + load(motion.y_products + column) - tangent);
    } else {
        tangent *= T(2);
    }
}

template <class T, Form FORM, Moving MOVING>
inline void group_tangents(const CostTiles<T>& tiles, const Motion<T>& motion, int64_t row,
                           int64_t tile, T* costs, T* tangents) {
    constexpr int LANES = Simd<T>::LANES;
    int64_t offsets[ROWS];
    for (int r = 0; r < ROWS; ++r)
        offsets[r] = (row + r < tiles.n ? row + r : tiles.n - 1) * tiles.d;
    const int64_t at = tile * tiles.d * tiles.width;
    for (int64_t j = 0; j < tiles.width; j += BOTH * LANES)
        for (int64_t from = 0; from < tiles.d; from += RUN_OF_COORDINATES) {
            const int64_t to =
                from + RUN_OF_COORDINATES < tiles.d ? from + RUN_OF_COORDINATES : tiles.d;
            Vector<T> cost[ROWS][BOTH] = {}, tangent[ROWS][BOTH] = {};
            add_tangent_coordinates<T, FORM, MOVING>(tiles.x, motion.x, offsets, tiles.y + at + j,
                                                     motion.y + at + j, tiles.width, from, to, cost,
                                                     tangent);
            for (int r = 0; r < ROWS; ++r)
                for (int c = 0; c < BOTH; ++c) {
                    const int64_t entry = r * tiles.width + j + c * LANES,
                                  own = row + r < tiles.n ? row + r : tiles.n - 1;
                    if (from > 0)
                        cost[r][c] += load(costs + entry), tangent[r][c] += load(tangents + entry);
                    if (to == tiles.d)
                        finish_tangents<T, FORM>(tiles, motion, own,
                                                 tile * tiles.width + j + c * LANES, cost[r][c],
                                                 tangent[r][c]);
                    store(costs + entry, cost[r][c]), store(tangents + entry, tangent[r][c]);
                }
        }
}

// The costs and tangents of a group of rows with a tile of columns, (ROWS, width) each.
template <class T, Form FORM>
inline void moving_tangents(const CostTiles<T>& tiles, const Motion<T>& motion, int64_t row,
                            int64_t tile, T* costs, T* tangents) {
    switch (motion.moving) {
        case Moving::both:
            group_tangents<T, FORM, Moving::both>(tiles, motion, row, tile, costs, tangents);
            break;
        case Moving::rows:
            group_tangents<T, FORM, Moving::rows>(tiles, motion, row, tile, costs, tangents);
            break;
        case Moving::columns:
            group_tangents<T, FORM, Moving::columns>(tiles, motion, row, tile, costs, tangents);
            break;
    }
}

// Calls reduce(tile, row, rows, costs, tangents) for each group of rows and each tile; both are
// (ROWS, width). Pairs of points only.
template <class T, class Reduce>
inline void sweep_tangents(const CostTiles<T>& tiles, const Motion<T>& motion, const Rows<T>& range,
                           Reduce reduce) {
    const int64_t count = tiles.count();
    T *costs = range.scratch, *tangents = range.scratch + ROWS * tiles.width;
    for (int64_t tile = 0; tile < count; ++tile)
        for (int64_t row = range.begin; row < range.end; row += ROWS) {
            if (tiles.form == Form::squared_differences)
                moving_tangents<T, Form::squared_differences>(tiles, motion, row, tile, costs,
                                                              tangents);
            else if (tiles.form == Form::squared_product)
                moving_tangents<T, Form::squared_product>(tiles, motion, row, tile, costs,
                                                          tangents);
            else
                moving_tangents<T, Form::distance>(tiles, motion, row, tile, costs, tangents);
            reduce(tile, row, int(range.end - row < ROWS ? range.end - row : ROWS), costs,
                   tangents);
        }
}

}  // namespace sinkdiv::SINKDIV_ISA
