// Compiled once for each instruction set, with SINKDIV_ISA naming it.
#include "passes.h"
#include "small.h"

namespace sinkdiv::SINKDIV_ISA {

#define SINKDIV_NAME_(isa) #isa
#define SINKDIV_NAME(isa) SINKDIV_NAME_(isa)

template <class T>
const Passes<T>& passes() {
    static constexpr Passes<T> table{SINKDIV_NAME(SINKDIV_ISA), ROWS,         Simd<T>::LANES * VECTORS,
                                     costs<T>,                  softmin<T>,   ctransform<T>,
                                     product<T>,                cost_product<T>, marginals<T>, weighted_marginals<T>,
                                     tangent_marginals<T>,      weighted_gradient<T>,
                                     gradient_tangent<T>,       plan_cost<T>, plan_matrix<T>,
                                     weighted_plan<T>,          corrected_primal<T>,
                                     small_memory<T>,           solve_small<T>};
    return table;
}

template const Passes<float>& passes<float>();
template const Passes<double>& passes<double>();

}  // namespace sinkdiv::SINKDIV_ISA
