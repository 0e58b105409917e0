// Compiled once for each instruction set, which SINKDIV_ISA names: the passes, and the solves of
// small problems.
#include "reductions.h"
#include "small/accelerated.h"
#include "small/symmetric.h"

namespace sinkdiv::SINKDIV_ISA {

template <class T>
int64_t column_unit() {
    return Simd<T>::LANES * VECTORS;
}

template <class T>
void solve_small(const SmallProblem<T>& problem, char* memory, Cancelled cancelled) {
    if (problem.symmetric)
        Symmetric<T>(problem, memory).run(cancelled);
    else
        Accelerated<T>(problem, memory).run(cancelled);
}

template int64_t column_unit<float>();
template int64_t column_unit<double>();
template int64_t small_memory<float>(int64_t, int64_t, int64_t, int64_t);
template int64_t small_memory<double>(int64_t, int64_t, int64_t, int64_t);
template void solve_small<float>(const SmallProblem<float>&, char*, Cancelled);
template void solve_small<double>(const SmallProblem<double>&, char*, Cancelled);

}  // namespace sinkdiv::SINKDIV_ISA
