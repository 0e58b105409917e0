// A whole problem, small enough for one thread, as its solver is told of it.
#pragma once

#include "tiles/cost_tiles.h"

namespace sinkdiv {

constexpr int64_t SMALL_SIDE = 4096;  // most rows or columns of a small problem

// Weights a (n) and b (m); potentials f, raw_f (n) and g, raw_g (m).
template <class T>
struct SmallProblem {
    CostTiles<T> tiles;
    const T *a, *b;
    double eps, rho_f, rho_g;  // the strengths are infinite for hard marginals
    double spread;             // a bound of max C - min C
    bool symmetric;
    double tol;
    int64_t max_passes;
    const T* start;            // the potential g of a similar problem, or null
    T *f, *g, *raw_f, *raw_g;  // results, as in solvers/problem.py
    T *error, *value;          // one number each: the marginal error, the dual value
    int64_t* passes;
    float* history;  // the error at each of the first `checks` checks, NaN above the target eps
    int64_t checks;
    T* gradient;         // sum_j P_ij dC_ij/dx_i (n, d), or null
    Operand<T> operand;  // the columns' points, for the gradient
};

// Whether the solve must end; asked at each step.
struct Cancelled {
    bool (*asked)(void*);
    void* state;
    bool operator()() const { return asked(state); }
};

}  // namespace sinkdiv
