// The softmin of the rows.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

// -eps ln 2 * log2 sum_j 2^z_ij
template <class T>
struct Softmin {
    Scores<T> scores;  // without u
    T* out;            // (n)
};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T>
void pass(const CostTiles<T>& tiles, const Softmin<T>& given, const Rows<T>& range) {
    const Scores<T>& s = given.scores;
    const int64_t begin = range.begin, end = range.end;
    T* const tops = range.scratch;
    T* const costs = range.scratch + BLOCK;
    double sums[BLOCK];
    for (int64_t i = begin; i < end; ++i) tops[i - begin] = T(LOWEST), sums[i - begin] = 0;
    const int64_t count = tiles.count();
    for (int64_t tile = 0; tile < count; ++tile) {
        const T* h = s.h + tile * tiles.width;
        for (int64_t row = begin; row < end; row += ROWS) {
            const int rows = int(end - row < ROWS ? end - row : ROWS);
            const Running<T> running{tops + row - begin, sums + row - begin};
            if (add_tile_without_maximum(tiles, h, s.scale, row, rows, tile, running)) continue;
            any_costs(tiles, row, tile, costs);
            for (int r = 0; r < rows; ++r) {
                T* const own = costs + r * tiles.width;
                add_tile(own, own, h, s.scale, tiles.width, running.tops[r], running.sums[r]);
            }
        }
    }
    for (int64_t i = begin; i < end; ++i)
        given.out[i] =
            T(-(double(tops[i - begin]) + __builtin_log2(sums[i - begin])) / double(s.scale));
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void softmin(const Batch& batch, Address h, Address eps, Address out) {
    const Call<T> call(batch, eps);
    const auto exponents = call.column_exponents(h);
    call.run([&](int64_t b, int) {
        return Softmin<T>{{nullptr, exponents[b], call.scale(b)}, entries<T>(out, b * batch.n)};
    });
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(softmin, Softmin)
