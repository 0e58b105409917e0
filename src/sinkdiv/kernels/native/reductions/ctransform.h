// The softmin of eps = 0.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

// min_j C_ij - g_j; +infinity where all g_j are -infinity
template <class T>
struct CTransform {
    const T* g;  // (tiles, width), -infinity in padded columns
    T* out;      // (n)
};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T>
void pass(const CostTiles<T>& tiles, const CTransform<T>& given, const Rows<T>& range) {
    constexpr int LANES = Simd<T>::LANES;
    T* const out = given.out;
    for (int64_t i = range.begin; i < range.end; ++i) out[i] = T(__builtin_inf());
    sweep(tiles, range, [&](int64_t tile, int64_t row, int rows, T* c) {
        const T* sent = given.g + tile * tiles.width;
        for (int r = 0; r < rows; ++r, c += tiles.width) {
            Vector<T> top0 = fill(T(-__builtin_inf())), top1 = top0;
            for (int64_t j = 0; j < tiles.width; j += 2 * LANES) {
                top0 = larger(top0, load(sent + j) - load(c + j));
                top1 = larger(top1, load(sent + j + LANES) - load(c + j + LANES));
            }
            const T least = -largest<T>(larger(top0, top1));
            if (least < out[row + r]) out[row + r] = least;
        }
    });
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void ctransform(const Batch& batch, Address g, Address out) {
    const Call<T> call(batch);
    const auto columns = call.columns(g, -std::numeric_limits<T>::infinity());
    call.run(
        [&](int64_t b, int) { return CTransform<T>{columns[b], entries<T>(out, b * batch.n)}; });
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(ctransform, CTransform)
