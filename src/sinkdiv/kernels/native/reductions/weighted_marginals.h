// The marginals of `WeightedPlan`.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

// The sums over j and over i of P_ij (s_i + t_j + log P_ij)
template <class T>
struct WeightedMarginals {
    Scores<T> scores;
    Factors<T> factors;
    double* columns;  // (tiles, width), to which the sums over the rows are added
    T* out;           // (n), the sums over the columns
};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T>
void pass(const CostTiles<T>& tiles, const WeightedMarginals<T>& given, const Rows<T>& range) {
    BothSums<T> both{tiles, given.scores, range, range.scratch + ROWS * tiles.width, given.columns,
                     {}};
    sweep(tiles, range, [&](int64_t tile, int64_t row, int rows, T* costs) {
        const T *own = given.factors.rows + row,
                *theirs = given.factors.columns + tile * tiles.width;
        both.add(tile, row, rows, costs, [&](Vector<T> z, int r, int64_t j) {
            return weighted_entry<T>(z, own[r] + load(theirs + j));
        });
    });
    both.write(given.out);
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void weighted_marginals(const Batch& batch, Address u, Address h, Address eps, Address s, Address t,
                        Address rows, Address columns) {
    const Call<T> call(batch, eps);
    const PlanScores<T> scores(call, u, h);
    const PlanFactors<T> factors(call, s, t);
    const ColumnSums<T> sums(call);
    call.run([&](int64_t b, int thread) {
        return WeightedMarginals<T>{scores[b], factors[b], sums.of(b, thread),
                                    entries<T>(rows, b * batch.n)};
    });
    sums.write(columns);
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(weighted_marginals, WeightedMarginals)
