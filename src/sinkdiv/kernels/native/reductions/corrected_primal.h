// The primal value of a rounded plan, behind upper bounds.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

// sum_j b_j s_ij (C_ij + eps log s_ij) for the density s_ij = 2^z_ij + p_i q_j
template <class T>
struct CorrectedPrimal {
    Scores<T> scores;
    const T* b;   // (tiles, width)
    const T* p;   // (n)
    const T* q;   // (tiles, width)
    double* out;  // (n)
};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T>
void pass(const CostTiles<T>& tiles, const CorrectedPrimal<T>& given, const Rows<T>& range) {
    constexpr int LANES = Simd<T>::LANES;
    const Scores<T>& s = given.scores;
    const T *b = given.b, *up = given.p, *q = given.q;
    double* const out = given.out;
    const T unit = T(1) / s.scale;  // eps ln 2, with a logarithm in base 2
    const T tiny = sizeof(T) == 4 ? T(1e-37) : T(1e-300);
    for (int64_t i = range.begin; i < range.end; ++i) out[i] = 0;
    sweep(tiles, range, [&](int64_t tile, int64_t row, int rows, T* c) {
        const int64_t from = tile * tiles.width;
        for (int r = 0; r < rows; ++r, c += tiles.width) {
            Vector<T> sum0 = {};
            for (int64_t j = 0; j < tiles.width; j += LANES) {
                const Vector<T> cost = load(c + j);
                const Vector<T> plain =
                    exp2_or_zero<T>(score(cost, load(s.h + from + j), s.scale) + s.u[row + r]);
                const Vector<T> density = plain + up[row + r] * load(q + from + j);
                const Vector<T> logarithm = log2_positive<T>(larger(density, fill(tiny)));
                sum0 += load(b + from + j) * density * (cost + unit * logarithm);
            }
            out[row + r] += double(sum<T>(sum0));
        }
    });
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void corrected_primal(const Batch& batch, Address a, Address b, Address log_u, Address log_h,
                      Address eps, Address p, Address q, Address out) {
    const Call<T> call(batch, eps);
    const PlanScores<T> scores(call, log_u, log_h);
    const auto weights = call.columns(b), across = call.columns(q);
    const RowTotals<T> totals(batch);
    call.run([&](int64_t i, int) {
        return CorrectedPrimal<T>{scores[i], weights[i], entries<const T>(p, i * batch.n),
                                  across[i], totals.of(i)};
    });
    totals.write(out, a);
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(corrected_primal, CorrectedPrimal)
