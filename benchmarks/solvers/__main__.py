"""How many passes does a solver need? The library's and the rejected ones, on problems easy and hard.

    python -m benchmarks.solvers

writes solvers.json, solvers.md and solvers.png. A pass is one softmin over all pairs. Its count does not depend on the
machine (but roundings may change it a little), so nothing is timed.

Sections: suite (every solver on every problem), variants (the library's solver without one of its parts), small (1 to
12 points), float32, self (clouds against themselves), warm (starts from a problem whose points have moved).
"""

from __future__ import annotations

import torch

from benchmarks.frame.book import Benchmark
from benchmarks.solvers.report import report
from benchmarks.solvers.sections import SECTIONS, Context


def main(arguments: list[str] | None = None) -> None:
    benchmark = Benchmark("solvers", SECTIONS, report)
    options = benchmark.parser(__doc__).parse_args(arguments)
    torch.set_num_threads(1)
    if options.quick:
        benchmark.run(options.only, Context(options.out, 30, 40, 3, 4, 4), "quick")
    else:
        benchmark.run(options.only, Context(options.out), "full")


if __name__ == "__main__":
    main()
