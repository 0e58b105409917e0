// The costs themselves.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

// C_ij
template <class T>
struct Costs {
    T* out;  // (n, m)
};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T>
void pass(const CostTiles<T>& tiles, const Costs<T>& given, const Rows<T>& range) {
    sweep(tiles, range, [&](int64_t tile, int64_t row, int rows, T* c) {
        for (int r = 0; r < rows; ++r)
            copy_row(tiles, tile, c + r * tiles.width, given.out + (row + r) * tiles.m);
    });
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void costs(const Batch& batch, Address out) {
    const Call<T> call(batch);
    call.run([&](int64_t b, int) { return Costs<T>{entries<T>(out, b * batch.n * batch.m)}; });
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(costs, Costs)
