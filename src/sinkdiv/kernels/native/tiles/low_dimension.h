// Tiles of points in up to four dimensions, whose costs and tangents never leave the registers.
#pragma once

#include "tiles/tangents.h"

namespace sinkdiv::SINKDIV_ISA {

// Tiles in D dimensions.
template <class T, Form FORM, int D>
struct LowTiles {
    static constexpr int DIMENSION = D;
    static constexpr bool DISTANCE = FORM == Form::distance;
    const CostTiles<T>& tiles;
    const Motion<T>& motion;

    // Calls take(r, j, differences, velocities, cost, tangent) for COUNT rows from `row` on and
    // each vector of a tile. Beyond the last row of the problem the last row is repeated.
    template <int COUNT, class Take>
    void each(int64_t row, int64_t tile, Take take) const {
        T x[COUNT][D], dx[COUNT][D];
        for (int r = 0; r < COUNT; ++r)
            for (int k = 0; k < D; ++k) {
                const int64_t at = (row + r < tiles.n ? row + r : tiles.n - 1) * D + k;
                x[r][k] = tiles.x[at], dx[r][k] = motion.x[at];
            }
        const T *y = tiles.y + tile * D * tiles.width, *dy = motion.y + tile * D * tiles.width;
        for (int64_t j = 0; j < tiles.width; j += Simd<T>::LANES) {
            Vector<T> columns[D], moves[D];
            for (int k = 0; k < D; ++k)
                columns[k] = load(y + k * tiles.width + j),
                moves[k] = load(dy + k * tiles.width + j);
#pragma GCC unroll 8
            for (int r = 0; r < COUNT; ++r) {
                Vector<T> differences[D], velocities[D], cost = {}, tangent = {};
#pragma GCC unroll 8
                for (int k = 0; k < D; ++k) {
                    differences[k] = x[r][k] - columns[k], velocities[k] = dx[r][k] - moves[k];
                    cost += differences[k] * differences[k];
                    tangent += differences[k] * velocities[k];
                }
                finish_tangents<T, FORM>(tiles, motion, 0, 0, cost, tangent);
                take(r, j, differences, velocities, cost, tangent);
            }
        }
    }
};

// Calls pass(low) with the tiles as `LowTiles` of their form and dimension. Returns false if the
// dimension is not low.
template <class T, class Pass>
inline bool in_low_dimension(const CostTiles<T>& tiles, const Motion<T>& motion, Pass pass) {
    const auto in = [&](auto distances, auto squares) {
        tiles.form == Form::distance ? pass(distances) : pass(squares);
    };
    constexpr Form DISTANCE = Form::distance, SQUARES = Form::squared_differences;
    switch (tiles.d) {
        case 1:
            return in(LowTiles<T, DISTANCE, 1>{tiles, motion},
                      LowTiles<T, SQUARES, 1>{tiles, motion}),
                   true;
        case 2:
            return in(LowTiles<T, DISTANCE, 2>{tiles, motion},
                      LowTiles<T, SQUARES, 2>{tiles, motion}),
                   true;
        case 3:
            return in(LowTiles<T, DISTANCE, 3>{tiles, motion},
                      LowTiles<T, SQUARES, 3>{tiles, motion}),
                   true;
        case 4:
            return in(LowTiles<T, DISTANCE, 4>{tiles, motion},
                      LowTiles<T, SQUARES, 4>{tiles, motion}),
                   true;
        default: return false;
    }
}

}  // namespace sinkdiv::SINKDIV_ISA
