// The plan itself.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

// P_ij
template <class T>
struct PlanMatrix {
    Scores<T> scores;
    T* out;  // (n, m)
};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T>
void pass(const CostTiles<T>& tiles, const PlanMatrix<T>& given, const Rows<T>& range) {
    const Scores<T>& s = given.scores;
    sweep(tiles, range, [&](int64_t tile, int64_t row, int rows, T* c) {
        for (int r = 0; r < rows; ++r, c += tiles.width) {
            plan_row(c, s.h + tile * tiles.width, s.u[row + r], s.scale, tiles.width, c);
            copy_row(tiles, tile, c, given.out + (row + r) * tiles.m);
        }
    });
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void plan_matrix(const Batch& batch, Address u, Address h, Address eps, Address out) {
    const Call<T> call(batch, eps);
    const PlanScores<T> scores(call, u, h);
    call.run([&](int64_t b, int) {
        return PlanMatrix<T>{scores[b], entries<T>(out, b * batch.n * batch.m)};
    });
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(plan_matrix, PlanMatrix)
