// The gradient of <P, C> in the rows' points, for a fixed plan.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

// sum_j P_ij dC_ij/dx_i
template <class T>
struct PlanGradient {
    Scores<T> scores;
    const T* points;  // the rows' points (n, d)
    Operand<T> v;     // the columns' points
    bool distance;    // whether costs are distances, or their squares
    double* sums;     // BLOCK (d + 1) numbers that belong to the thread
    T* out;           // (n, d)
};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T>
void pass(const CostTiles<T>& tiles, const PlanGradient<T>& given, const Rows<T>& range) {
    const Scores<T>& s = given.scores;
    T* const plan = range.scratch + ROWS * tiles.width;
    BlockSums<T> sums(given.v, given.points, range, given.sums);
    sweep(tiles, range, [&](int64_t tile, int64_t row, int rows, T* costs) {
        for (int r = 0; r < ROWS; ++r) {
            const int own = r < rows ? r : rows - 1;
            const T* const c = costs + own * tiles.width;
            T* const weights = plan + r * tiles.width;
            plan_row(c, s.h + tile * tiles.width, s.u[row + own], s.scale, tiles.width, weights,
                     LEAST_FACTOR<T>);
            if (given.distance) divide_by_distance(c, tiles.width, weights);
        }
        sums.add(tiles, tile, row, rows, plan);
    });
    sums.write(given.distance ? 1.0 : 2.0, given.out);
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void plan_gradient(const Batch& batch, Address u, Address h, Address eps, Address out) {
    const Call<T> call(batch, eps);
    const PlanScores<T> scores(call, u, h);
    const auto points = call.operand(batch.y, batch.d);
    const auto sums = call.sums(batch.d + 1);
    call.run([&](int64_t b, int thread) {
        return PlanGradient<T>{scores[b],    call.packed().x(b),
                               points[b],    batch.euclidean,
                               sums[thread], entries<T>(out, b * batch.n * batch.d)};
    });
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(plan_gradient, PlanGradient)
