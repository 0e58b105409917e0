// What each header of this folder begins with. A reduction is described once, and compiled twice:
//
// - a structure of what a pass is told of one problem;
// - with SINKDIV_ISA, for one instruction set: `pass`, which reduces a block of rows;
// - without it, for the module: the function that Python calls, which packs a batch and runs the
//   passes.
//
// The header ends with SINKDIV_REDUCTION(function, structure), which joins the two and registers
// the function.
#pragma once

#include "tiles/cost_tiles.h"

#if defined(SINKDIV_ISA)

#include "tiles/block_sums.h"
#include "tiles/both_sums.h"
#include "tiles/low_dimension.h"
#include "tiles/softmin.h"

#define SINKDIV_REDUCTION(function, Structure)                                     \
    namespace sinkdiv::SINKDIV_ISA {                                               \
    template void pass<float>(const CostTiles<float>&, const Structure<float>&,    \
                              const Rows<float>&);                                 \
    template void pass<double>(const CostTiles<double>&, const Structure<double>&, \
                               const Rows<double>&);                               \
    }

#else

#include <functional>

#include "batches/sums.h"

namespace sinkdiv {

// The functions that Python can call, each for float32 and float64.
class Binding {
  public:
    template <class... Arguments>
    Binding(const char* name, void (*narrow)(const Batch&, Arguments...),
            void (*wide)(const Batch&, Arguments...)) {
        all().push_back([=](nb::module_& module) {
            module.def(name, [=](bool is_wide, const Batch& batch, Arguments... arguments) {
                (is_wide ? wide : narrow)(batch, arguments...);
            });
        });
    }

    static std::vector<std::function<void(nb::module_&)>>& all() {
        static std::vector<std::function<void(nb::module_&)>> bindings;
        return bindings;
    }
};

}  // namespace sinkdiv

#define SINKDIV_REDUCTION(function, Structure)                                                    \
    namespace sinkdiv {                                                                           \
    SINKDIV_IN_EACH_SET(template <class T>                                                        \
                        void pass(const CostTiles<T>&, const Structure<T>&, const Rows<T>&);)     \
    template <class T>                                                                            \
    void chosen_pass(const CostTiles<T>& tiles, const Structure<T>& given, const Rows<T>& rows) { \
        SINKDIV_IN_CHOSEN_SET(pass(tiles, given, rows));                                          \
    }                                                                                             \
    static const Binding function##_binding(#function, function<float>, function<double>);        \
    }

#endif
