"""How right, how fast and how large is a derivative, beside POT, OTT-JAX and GeomLoss on the same inputs?

    pip install -c constraints.txt -r benchmarks/requirements.txt -e .
    OMP_NUM_THREADS=2 python -m benchmarks.derivatives --cache references

writes derivatives.json (after every section), derivatives.md and derivatives.svg. A library that is absent is reported
as not installed. ``--only`` replaces some sections of an existing file.

Sections: errors (the gradient's against the forward solve's, on cost matrices), times (value, and value and gradient),
memory (of the sharp value's gradient), hessian (Hessian-vector products of the debiased divergence).
"""

from __future__ import annotations

from benchmarks.derivatives.report import report
from benchmarks.derivatives.sections import FULL, QUICK, SECTIONS, Context
from benchmarks.frame.book import Benchmark
from benchmarks.frame.clock import bind_threads


def main(arguments: list[str] | None = None) -> None:
    benchmark = Benchmark("derivatives", SECTIONS, report)
    parser = benchmark.parser(__doc__)
    Context.add_options(parser, limit=200.0)
    parser.add_argument("--memory", type=float, default=12.0, help="GB that a method may take")
    options = parser.parse_args(arguments)
    sizes, size = (QUICK, "quick") if options.quick else (FULL, "full")
    given = Context.given(options, repetitions=sizes.repetitions)
    benchmark.run(options.only, Context(sizes=sizes, memory=options.memory, **given), size)


if __name__ == "__main__":
    bind_threads()
    main()
