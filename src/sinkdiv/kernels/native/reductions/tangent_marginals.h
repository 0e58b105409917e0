// How fast the plan's costs change as points move.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

// The sums over j and over i of P_ij times the cost's tangent
template <class T>
struct TangentMarginals {
    Scores<T> scores;
    Motion<T> motion;
    double* columns;  // (tiles, width), to which the sums over the rows are added
    T* out;           // (n), the sums over the columns
};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T, class Low>
inline void low_tangent_marginals(const Low& low, const TangentMarginals<T>& given,
                                  const Rows<T>& range) {
    const Scores<T>& s = given.scores;
    const int64_t begin = range.begin, end = range.end;
    T* const across = range.scratch;
    const int64_t count = low.tiles.count(), width = low.tiles.width;
    double rows_sums[BLOCK] = {};
    for (int64_t tile = 0; tile < count; ++tile)
        for (int64_t row = begin; row < end; row += ROWS) {
            const int rows = int(end - row < ROWS ? end - row : ROWS);
            const T* h = s.h + tile * width;
            T u[ROWS];
            for (int r = 0; r < ROWS; ++r) u[r] = r < rows ? s.u[row + r] : T(LOWEST);
            Vector<T> total[ROWS] = {}, column = {};
            low.template each<ROWS>(
                row, tile,
                [&](int r, int64_t j, const Vector<T>*, const Vector<T>*, Vector<T> cost,
                    Vector<T> tangent) {
                    const Vector<T> z = score(cost, load(h + j), s.scale) + u[r];
                    const Vector<T> term = exp2_or_zero<T>(z, LEAST_FACTOR<T>) * tangent;
                    total[r] += term;
                    column = r == 0 ? term : column + term;
                    if (r == ROWS - 1) store(across + j, column);
                });
            for (int r = 0; r < rows; ++r) rows_sums[row + r - begin] += double(sum<T>(total[r]));
            double* const into = given.columns + tile * width;
            for (int64_t j = 0; j < width; ++j) into[j] += double(across[j]);
        }
    for (int64_t i = begin; i < end; ++i) given.out[i] = T(rows_sums[i - begin]);
}

template <class T>
void pass(const CostTiles<T>& tiles, const TangentMarginals<T>& given, const Rows<T>& range) {
    const auto in_registers = [&](const auto& low) { low_tangent_marginals(low, given, range); };
    if (in_low_dimension(tiles, given.motion, in_registers)) return;
    BothSums<T> both{
        tiles, given.scores, range, range.scratch + 2 * ROWS * tiles.width, given.columns, {}};
    sweep_tangents(tiles, given.motion, range,
                   [&](int64_t tile, int64_t row, int rows, T* costs, T* tangents) {
                       both.add(tile, row, rows, costs, [&](Vector<T> z, int r, int64_t j) {
                           return exp2_or_zero<T>(z, LEAST_FACTOR<T>) *
                                  load(tangents + r * tiles.width + j);
                       });
                   });
    both.write(given.out);
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void tangent_marginals(const Batch& batch, Address u, Address h, Address eps, Address dx,
                       Address dy, Address rows, Address columns) {
    const Call<T> call(batch, eps);
    const PlanScores<T> scores(call, u, h);
    const auto motion = call.motion(dx, dy);
    const ColumnSums<T> sums(call);
    call.run([&](int64_t b, int thread) {
        return TangentMarginals<T>{scores[b], motion[b], sums.of(b, thread),
                                   entries<T>(rows, b * batch.n)};
    });
    sums.write(columns);
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(tangent_marginals, TangentMarginals)
