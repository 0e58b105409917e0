// The plan's marginals.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

// sum_j P_ij and sum_i P_ij
template <class T>
struct Marginals {
    Scores<T> scores;
    double* columns;  // (tiles, width), to which the sums over the rows are added
    T* out;           // (n), the sums over the columns
};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T>
void pass(const CostTiles<T>& tiles, const Marginals<T>& given, const Rows<T>& range) {
    BothSums<T> both{tiles, given.scores, range, range.scratch + ROWS * tiles.width, given.columns,
                     {}};
    sweep(tiles, range, [&](int64_t tile, int64_t row, int rows, T* costs) {
        both.add(tile, row, rows, costs,
                 [](Vector<T> z, int, int64_t) { return exp2_or_zero<T>(z); });
    });
    both.write(given.out);
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void marginals(const Batch& batch, Address u, Address h, Address eps, Address rows,
               Address columns) {
    const Call<T> call(batch, eps);
    const PlanScores<T> scores(call, u, h);
    const ColumnSums<T> sums(call);
    call.run([&](int64_t b, int thread) {
        return Marginals<T>{scores[b], sums.of(b, thread), entries<T>(rows, b * batch.n)};
    });
    sums.write(columns);
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(marginals, Marginals)
