// Products of the plan, times the costs, with vectors.
#pragma once

#include "reductions/products.h"

namespace sinkdiv {

// sum_j P_ij C_ij v_jl
template <class T>
struct CostProduct : ProductOperands<T> {};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

template <class T>
void pass(const CostTiles<T>& tiles, const CostProduct<T>& given, const Rows<T>& range) {
    constexpr int LANES = Simd<T>::LANES;
    const Scores<T>& s = given.scores;
    T* const weighted = range.scratch + ROWS * tiles.width;
    BlockSums<T> sums(given.v, nullptr, range, given.sums);
    sweep(tiles, range, [&](int64_t tile, int64_t row, int rows, T* costs) {
        for (int r = 0; r < ROWS; ++r) {
            const int own = r < rows ? r : rows - 1;
            const T* const c = costs + own * tiles.width;
            T* const weights = weighted + r * tiles.width;
            plan_row(c, s.h + tile * tiles.width, s.u[row + own], s.scale, tiles.width, weights,
                     LEAST_FACTOR<T>);
            for (int64_t j = 0; j < tiles.width; j += LANES)
                store(weights + j, load(weights + j) * load(c + j));
        }
        sums.add(tiles, tile, row, rows, weighted);
    });
    sums.write(1.0, given.out);
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void cost_product(const Batch& batch, Address u, Address h, Address eps, Address v, int64_t k,
                  Address out) {
    run_product<CostProduct, T>(batch, u, h, eps, v, k, out);
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(cost_product, CostProduct)
