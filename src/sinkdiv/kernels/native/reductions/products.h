// What products of the plan with vectors share: what they are given, and how they are called.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

template <class T>
struct ProductOperands {
    Scores<T> scores;
    Operand<T> v;
    double* sums;  // BLOCK (k + 1) numbers that belong to the thread
    T* out;        // (n, k)
};

#if !defined(SINKDIV_ISA)

template <template <class> class Product, class T>
void run_product(const Batch& batch, Address u, Address h, Address eps, Address v, int64_t k,
                 Address out) {
    const Call<T> call(batch, eps);
    const PlanScores<T> scores(call, u, h);
    const auto operand = call.operand(v, k);
    const auto sums = call.sums(k + 1);
    call.run([&](int64_t b, int thread) {
        return Product<T>{{scores[b], operand[b], sums[thread], entries<T>(out, b * batch.n * k)}};
    });
}

#endif

}  // namespace sinkdiv
