// The Python module: bindings only. Tensors come as addresses; __init__.py is the only caller and
// answers for them.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "reductions.h"
#include "small/batch.h"

NB_MODULE(_native, m) {
    using namespace sinkdiv;
    nb::set_leak_warnings(false);  // modules that are never unloaded may keep objects to the end
    nb::class_<Batch>(m, "Batch")
        .def("__init__", [](Batch* self, Address x, Address y, int64_t batch, int64_t n,
                            int64_t columns, int64_t d, bool euclidean, int threads) {
            new (self) Batch{x, y, batch, n, columns, d, euclidean, std::max(threads, 1)};
        });
    for (const auto& bind : Binding::all()) bind(m);
    nb::class_<SmallBatch>(m, "SmallBatch")
        .def("__init__",
             [](SmallBatch* self, const Batch& problems, Address eps, double rho_f, double rho_g,
                bool symmetric, Address a, Address b, Address start, Address results,
                Address passes, Address history, Address gradient, int64_t checks) {
                 new (self) SmallBatch{problems,  entries<const double>(eps),
                                       rho_f,     rho_g,
                                       symmetric, a,
                                       b,         start,
                                       results,   passes,
                                       history,   gradient,
                                       checks};
             });
    m.def("solve_small", [](bool is_wide, const std::vector<SmallBatch*>& batches, double tol,
                            int64_t max_passes) {
        (is_wide ? solve_small<double> : solve_small<float>)(batches, tol, max_passes);
    });
    m.attr("SMALL_SIDE") = SMALL_SIDE;
    m.attr("NARROW") = PackedOperand<double>::NARROW;
    m.def("supported_instruction_sets", supported_names);
    m.def("instruction_set", [] { return name_of(chosen_set()); });
    m.def("use_instruction_set", [](const std::string& name) {
        if (!choose_set(name))
            throw nb::value_error("this processor does not support that instruction set");
    });
}
