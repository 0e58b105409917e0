"""How fast is entropic transport with an explicit cost matrix, beside regot, POT and OTT-JAX on the same inputs?

    pip install -c constraints.txt -r benchmarks/requirements.txt regot -e .
    OMP_NUM_THREADS=1 python -m benchmarks.matrices

writes matrices.json (every time) and matrices.md. float64; n = m = 1000; costs uniform in [0, 1], and squared distances
between uniform points of the square, divided by their largest; ε from 0.1 to 1e-4.

Everybody is asked for an L1 marginal error of 1e-6, rows and columns added up. Where a library's tolerance is another
norm, the loosest of `TOLERANCES` is taken whose plan has that error; a method that meets it with none, within its
iterations, is reported as not reached. Every plan is judged outside the timing: its marginal error, and <P, C> against
that of a solve to 1e-12.

Sections: forward (until the potentials or the plan are there), batch (64 problems of 128 × 128, ours only), gradient
(the sharp value and its gradient in C: ours and OTT-JAX's implicit, POT's by differentiating its iterations).
"""

from __future__ import annotations

import os

import torch

from benchmarks.frame.book import Benchmark
from benchmarks.frame.clock import bind_threads
from benchmarks.matrices.methods import METHODS
from benchmarks.matrices.report import report
from benchmarks.matrices.sections import SECTIONS, Context

EPS = (0.1, 0.01, 0.001, 0.0001)


def main(arguments: list[str] | None = None) -> None:
    benchmark = Benchmark("matrices", SECTIONS, report)
    parser = benchmark.parser(__doc__)
    parser.add_argument("--n", type=int, default=1000, help="rows and columns")
    parser.add_argument("--methods", default="", help="only methods whose name contains one of these, comma-separated")
    parser.add_argument("--without", default="none", help="no methods whose name contains one of these")
    parser.add_argument("--eps", nargs="+", type=float, default=EPS, help="regularisations")
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    wanted, unwanted = options.methods.split(","), options.without.split(",")
    methods = [
        method
        for method in METHODS
        if any(part in method.name for part in wanted) and not any(part in method.name for part in unwanted)
    ]
    eps, full = tuple(options.eps), (options.n, (64, 128), options.repetitions)
    n, batch, repetitions = (20, (2, 10), 1) if options.quick else full
    context = Context(options.out, methods, n, batch, eps[:2] if options.quick else eps, repetitions)
    benchmark.run(options.only, context, "quick" if options.quick else "full")


if __name__ == "__main__":
    bind_threads()
    main()
