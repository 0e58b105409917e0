// Products of the plan with vectors.
#pragma once

#include "reductions/products.h"

namespace sinkdiv {

// sum_j P_ij v_jl
template <class T>
struct PlanProduct : ProductOperands<T> {};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T>
void pass(const CostTiles<T>& tiles, const PlanProduct<T>& given, const Rows<T>& range) {
    const Scores<T>& s = given.scores;
    T* const plan = range.scratch + ROWS * tiles.width;
    BlockSums<T> sums(given.v, nullptr, range, given.sums);
    sweep(tiles, range, [&](int64_t tile, int64_t row, int rows, T* costs) {
        for (int r = 0; r < ROWS; ++r) {
            const int own = r < rows ? r : rows - 1;
            plan_row(costs + own * tiles.width, s.h + tile * tiles.width, s.u[row + own], s.scale,
                     tiles.width, plan + r * tiles.width);
        }
        sums.add(tiles, tile, row, rows, plan);
    });
    sums.write(1.0, given.out);
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void plan_product(const Batch& batch, Address u, Address h, Address eps, Address v, int64_t k,
                  Address out) {
    run_product<PlanProduct, T>(batch, u, h, eps, v, k, out);
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(plan_product, PlanProduct)
