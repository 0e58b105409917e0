"""Three ellipsoids learn the three species of Iris, from optimal transport to the MMD (G18 §5.1).

    python -m experiments.iris_ellipses

The flowers are seen in their first three principal components, without scaling, and without their labels. The generator
is three equally likely ellipsoids, each with its uniform distribution. The fit is judged by how many of the 50 flowers
of a species lie inside of the ellipsoid that is assigned to it: 50 says nothing of how many others do, so the table
shows these too. One file a run is written to records/, then table.md and ellipses.png from these files.
"""

from __future__ import annotations

import functools
import sys

from experiments.frame import command
from experiments.frame.runs import carried_out
from experiments.iris_ellipses.report import write_report
from experiments.iris_ellipses.training import OURS, PAPER, Run, train


def main(arguments: list[str] | None = None) -> None:
    parser = command.parser(__doc__, "iris_ellipses")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 (3)")
    parser.add_argument("--steps", type=int, default=300, help="steps of Adam (300)")
    command.add_threads(parser)
    options = command.parsed(parser, arguments, seeds=1, steps=1)
    kinds = dict.fromkeys([*PAPER, *OURS])
    runs = [Run(*kind, seed, options.steps) for seed in range(options.seeds) for kind in kinds]
    report = functools.partial(write_report, folder=options.out)
    sys.exit(carried_out(runs, options.out / "records", train, report))


if __name__ == "__main__":
    main()
