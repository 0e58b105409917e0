// The gradient whose weights are those of `WeightedPlan`.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

// sum_j P_ij (s_i + t_j + log P_ij) dC_ij/dx_i
template <class T>
struct WeightedGradient {
    Scores<T> scores;
    Factors<T> factors;
    const T* points;  // the rows' points (n, d)
    Operand<T> v;     // the columns' points
    double* sums;     // BLOCK (d + 1) numbers that belong to the thread
    T* out;           // (n, d)
};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T>
void pass(const CostTiles<T>& tiles, const WeightedGradient<T>& given, const Rows<T>& range) {
    const Scores<T>& s = given.scores;
    const Factors<T>& f = given.factors;
    const bool distance = tiles.form == Form::distance;
    T* const weights = range.scratch + ROWS * tiles.width;
    BlockSums<T> sums(given.v, given.points, range, given.sums);
    sweep(tiles, range, [&](int64_t tile, int64_t row, int rows, T* costs) {
        const int64_t from = tile * tiles.width;
        for (int r = 0; r < ROWS; ++r) {
            const int64_t own = row + (r < rows ? r : rows - 1), at = r * tiles.width;
            weighted_row(costs + at, s.h + from, s.u[own], s.scale, f.rows[own], f.columns + from,
                         tiles.width, weights + at);
            if (distance) divide_by_distance(costs + at, tiles.width, weights + at);
        }
        sums.add(tiles, tile, row, rows, weights);
    });
    sums.write(distance ? 1.0 : 2.0, given.out);
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void weighted_gradient(const Batch& batch, Address u, Address h, Address eps, Address s, Address t,
                       Address out) {
    const Call<T> call(batch, eps);
    const PlanScores<T> scores(call, u, h);
    const PlanFactors<T> factors(call, s, t);
    const auto points = call.operand(batch.y, batch.d);
    const auto sums = call.sums(batch.d + 1);
    call.run([&](int64_t b, int thread) {
        return WeightedGradient<T>{scores[b], factors[b],   call.packed().x(b),
                                   points[b], sums[thread], entries<T>(out, b * batch.n * batch.d)};
    });
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(weighted_gradient, WeightedGradient)
