// The cost of a plan.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

// sum_j P_ij C_ij
template <class T>
struct PlanCost {
    Scores<T> scores;
    double* out;  // (n)
};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T>
void pass(const CostTiles<T>& tiles, const PlanCost<T>& given, const Rows<T>& range) {
    const Scores<T>& s = given.scores;
    double* const out = given.out;
    T* const plan = range.scratch + ROWS * tiles.width;
    for (int64_t i = range.begin; i < range.end; ++i) out[i] = 0;
    sweep(tiles, range, [&](int64_t tile, int64_t row, int rows, T* c) {
        for (int r = 0; r < rows; ++r, c += tiles.width) {
            plan_row(c, s.h + tile * tiles.width, s.u[row + r], s.scale, tiles.width, plan);
            out[row + r] += double(dot(plan, c, tiles.width));
        }
    });
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void plan_cost(const Batch& batch, Address u, Address h, Address eps, Address out) {
    const Call<T> call(batch, eps);
    const PlanScores<T> scores(call, u, h);
    const RowTotals<T> totals(batch);
    call.run([&](int64_t b, int) { return PlanCost<T>{scores[b], totals.of(b)}; });
    totals.write(out);
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(plan_cost, PlanCost)
