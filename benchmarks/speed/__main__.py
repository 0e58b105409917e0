"""How fast is a Sinkhorn divergence, and how right, beside GeomLoss, POT and OTT-JAX on the same inputs?

    pip install -c constraints.txt -r benchmarks/requirements.txt -e .
    OMP_NUM_THREADS=2 python -m benchmarks.speed --cache references

writes speed.json (every time), speed.md and speed_*.svg. It ran with torch 2.13.0, geomloss 0.3.1, pykeops 2.3 (needs
g++), pot 0.9.7.post1, ott-jax 0.6.0 and jax 0.8.3; a library that is absent is reported as not installed. One process
measures everything, in turns that go round the methods, so that a disturbance meets all alike. Each section is written
as soon as it is done; ``--only`` replaces some sections of an existing file. All libraries get OMP_NUM_THREADS threads
(XLA obeys the number of cores the process may use, which is set to the same).

Sections: conventions, T8 (one pass and its floor), kinds (the passes of derivatives too), T5 (training steps), T6
(batches), T1 and T2 (large clouds in 3 and 64 dimensions), accuracy (error against time), growth (time against the
number of points), memory.
"""

from __future__ import annotations

from benchmarks.frame.book import Benchmark
from benchmarks.frame.clock import bind_threads
from benchmarks.speed.report import report
from benchmarks.speed.sections import FULL, QUICK, SECTIONS, TINY, Context

SIZES = {"full": FULL, "quick": QUICK, "tiny": TINY}


def main(arguments: list[str] | None = None) -> None:
    benchmark = Benchmark("speed", SECTIONS, report)
    parser = benchmark.parser(__doc__)
    parser.add_argument("--size", choices=SIZES, default="full", help="quick and tiny only show that all works")
    parser.add_argument("--slow", action="store_true", help="also GeomLoss at scaling .9 on the large clouds")
    Context.add_options(parser, limit=400.0)
    options = parser.parse_args(arguments)
    size = "quick" if options.quick else options.size
    context = Context(sizes=SIZES[size], slow=options.slow, **Context.given(options))
    benchmark.run(options.only, context, size)


if __name__ == "__main__":
    bind_threads()
    main()
