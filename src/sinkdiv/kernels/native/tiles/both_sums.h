// Row and column sums of terms of the plan's entries, from one exponential for each pair.
#pragma once

#include "tiles/plan.h"

namespace sinkdiv::SINKDIV_ISA {

// For a block of rows. Sums over the rows are added to `columns`.
template <class T>
struct BothSums {
    const CostTiles<T>& tiles;
    const Scores<T>& s;
    const Rows<T>& range;
    T* across;  // (width): column sums of one group
    double* columns;
    double rows_sums[BLOCK];

    // Adds a group of rows with a tile. term_of(z, r, j) is the term of an entry with the exponent
    // z, in row r and column j of the tile.
    template <class Term>
    void add(int64_t tile, int64_t row, int rows, const T* costs, Term term_of) {
        constexpr int LANES = Simd<T>::LANES;
        const T* h = s.h + tile * tiles.width;
        for (int r = 0; r < rows; ++r) {
            const T u = s.u[row + r];
            Vector<T> sum0 = {};
            for (int64_t j = 0; j < tiles.width; j += LANES) {
                const Vector<T> term = term_of(
                    score(load(costs + r * tiles.width + j), load(h + j), s.scale) + u, r, j);
                sum0 += term;
                store(across + j, r == 0 ? term : load(across + j) + term);
            }
            rows_sums[row + r - range.begin] += double(sum<T>(sum0));
        }
        double* into = columns + tile * tiles.width;
        for (int64_t j = 0; j < tiles.width; ++j) into[j] += double(across[j]);
    }

    void write(T* out) const {
        for (int64_t i = range.begin; i < range.end; ++i) out[i] = T(rows_sums[i - range.begin]);
    }
};

}  // namespace sinkdiv::SINKDIV_ISA
