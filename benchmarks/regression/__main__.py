"""Does a commit compute the numbers that another one computed, and is it as fast?

    git worktree add ../before COMMIT           # and build its native kernels there
    python -m benchmarks.regression ../before/src src

writes regression.json and regression.md, and ends with status 1 if a number differs by more than rounding.

Sections: values (every quantity of more than a hundred problems), times (the speed benchmark's workloads, in turns),
noise (the times of the first tree against itself).
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.frame.book import Benchmark, load
from benchmarks.regression.report import report
from benchmarks.regression.sections import FULL, QUICK, SECTIONS, Context


def main(arguments: list[str] | None = None) -> int:
    benchmark = Benchmark("regression", SECTIONS, report)
    parser = benchmark.parser(__doc__)
    parser.add_argument("before", type=Path, help="folder that holds the package, such as ../before/src")
    parser.add_argument("after", type=Path, help="the same of the tree that is judged, such as src")
    parser.add_argument("--problems", help="those whose name contains this; all if it is left out")
    parser.add_argument("--workloads", nargs="+", help="those that begin so, such as T5 T7; all if it is left out")
    parser.add_argument("--starts", type=int, help="how often the processes are started for the times")
    options = parser.parse_args(arguments)
    sizes, size = (QUICK, "quick") if options.quick else (FULL, "full")
    sizes = sizes.changed(problems=options.problems, workloads=options.workloads, starts=options.starts)
    benchmark.run(options.only, Context(options.out, (options.before, options.after), sizes), size)
    values = load(options.out / "regression.json")["sections"].get("values")
    return 1 if "values" in options.only and values["beyond"] else 0


if __name__ == "__main__":
    sys.exit(main())
