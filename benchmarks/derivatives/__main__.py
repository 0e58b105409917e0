"""How right, how fast and how large is a derivative, beside POT, OTT-JAX and GeomLoss on the same inputs?

    pip install -c constraints.txt -r benchmarks/requirements.txt -e .
    OMP_NUM_THREADS=2 python -m benchmarks.derivatives --cache references

writes derivatives.json (after every section), derivatives.md and derivatives.svg. A library that is absent is reported
as not installed. ``--only`` replaces some sections of an existing file.

Sections: errors (the gradient's against the forward solve's, on cost matrices), times (value, and value and gradient),
memory (of the sharp value's gradient), hessian (Hessian-vector products of the debiased divergence).
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.derivatives.report import report
from benchmarks.derivatives.sections import FULL, QUICK, SECTIONS, Context
from benchmarks.frame.book import Benchmark
from benchmarks.frame.clock import bind_threads
from benchmarks.frame.racing import Limits


def main(arguments: list[str] | None = None) -> None:
    benchmark = Benchmark("derivatives", SECTIONS, report)
    parser = benchmark.parser(__doc__)
    parser.add_argument("--methods", default="", help="only methods whose name contains this")
    parser.add_argument("--cache", type=Path, help="folder that keeps references between runs")
    parser.add_argument("--limit", type=float, default=200.0, help="seconds that one call may take")
    parser.add_argument("--memory", type=float, default=12.0, help="GB that a method may take")
    options = parser.parse_args(arguments)
    sizes, size = (QUICK, "quick") if options.quick else (FULL, "full")
    limits = Limits(options.limit, options.limit / 5, sizes.repetitions)
    context = Context(options.out, sizes, options.methods, options.cache, limits, options.memory)
    benchmark.run(options.only, context, size)


if __name__ == "__main__":
    bind_threads()
    main()
