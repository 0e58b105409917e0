// Softmins over a stored cost matrix, to either side.
#pragma once

#include "small/sides.h"
#include "tiles/softmin.h"

namespace sinkdiv::SINKDIV_ISA {

// raw = -eps log(2^top * sum), from what a sweep left in tops and sums.
template <class T>
void finish_softmin(Side<T>& side, T scale) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t i = side.count; i < side.size; ++i) side.tops[i] = 0, side.sums[i] = 1;
    const T unit = T(-1) / scale;
    for (int64_t i = 0; i < side.size; i += LANES)
        store(side.raw + i, unit * (load(side.tops + i) + log2_positive<T>(load(side.sums + i))));
}

// The softmin over the columns of stored costs (rows, width), for h in base 2: each row is swept
// twice.
template <class T>
void softmin_along_rows(const T* costs, int64_t width, const T* h, T scale, T* row_buffer,
                        Side<T>& side) {
    for (int64_t i = 0; i < side.count; ++i) {
        T top = T(LOWEST);
        double total = 0;
        add_tile(costs + i * width, row_buffer, h, scale, width, top, total);
        side.tops[i] = top;
        side.sums[i] = T(total);
    }
    finish_softmin(side, scale);
}

// The softmin over the rows of stored costs (rows, width): two vectors of columns are swept twice
// at a time.
template <class T>
void softmin_along_columns(const T* costs, int64_t rows, int64_t width, const T* u, T scale,
                           Side<T>& side) {
    constexpr int LANES = Simd<T>::LANES;
    constexpr int64_t RUN = 128;  // terms added in a row, so that long sums keep their digits
    for (int64_t j = 0; j < width; j += 2 * LANES) {
        const T* c = costs + j;
        Vector<T> top0 = fill(T(LOWEST)), top1 = top0;
        for (int64_t i = 0; i < rows; ++i) {
            const Vector<T> own = fill(u[i]);
            top0 = larger(top0, score(load(c + i * width), own, scale));
            top1 = larger(top1, score(load(c + i * width + LANES), own, scale));
        }
        Vector<T> sum0 = {}, sum1 = {};
        for (int64_t start = 0; start < rows; start += RUN) {
            Vector<T> run0 = {}, run1 = {};
            for (int64_t i = start; i < (start + RUN < rows ? start + RUN : rows); ++i) {
                const Vector<T> own = fill(u[i]);
                run0 += exp2_relative<T>(score(load(c + i * width), own, scale) - top0);
                run1 += exp2_relative<T>(score(load(c + i * width + LANES), own, scale) - top1);
            }
            sum0 += run0, sum1 += run1;
        }
        store(side.tops + j, top0), store(side.tops + j + LANES, top1);
        store(side.sums + j, sum0), store(side.sums + j + LANES, sum1);
    }
    finish_softmin(side, scale);
}

}  // namespace sinkdiv::SINKDIV_ISA
