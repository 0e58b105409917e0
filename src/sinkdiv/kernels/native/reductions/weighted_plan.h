// The plan times factors and its own logarithm.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

// P_ij (s_i + t_j + log P_ij); 0 where P_ij is
template <class T>
struct WeightedPlan {
    Scores<T> scores;
    Factors<T> factors;
    T* out;  // (n, m)
};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T>
void pass(const CostTiles<T>& tiles, const WeightedPlan<T>& given, const Rows<T>& range) {
    const Scores<T>& s = given.scores;
    const Factors<T>& f = given.factors;
    sweep(tiles, range, [&](int64_t tile, int64_t row, int rows, T* c) {
        const int64_t from = tile * tiles.width;
        for (int r = 0; r < rows; ++r, c += tiles.width) {
            weighted_row(c, s.h + from, s.u[row + r], s.scale, f.rows[row + r], f.columns + from,
                         tiles.width, c);
            copy_row(tiles, tile, c, given.out + (row + r) * tiles.m);
        }
    });
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void weighted_plan(const Batch& batch, Address u, Address h, Address eps, Address s, Address t,
                   Address out) {
    const Call<T> call(batch, eps);
    const PlanScores<T> scores(call, u, h);
    const PlanFactors<T> factors(call, s, t);
    call.run([&](int64_t b, int) {
        return WeightedPlan<T>{scores[b], factors[b], entries<T>(out, b * batch.n * batch.m)};
    });
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(weighted_plan, WeightedPlan)
