"""Does a generator learn better from the analytic derivative of the sharp loss than from an unrolled one? (Q23)

    python -m experiments.analytic_differentiation

trains a generator for each target, method and seed and writes one file a run to records/, then table.md, points.png and
curves.svg from these files. A run whose file exists is skipped, so an interrupted command goes on when it is repeated,
and parts of the work may be done by several commands (--only, --methods, --seeds).

What is known of Q23's settings is followed: a 5-64-128-64-2 network with ReLU6, latents from N(0, I₅), a fixed sample
of 1,000 points against 1,000 fresh generated ones, Adam at 10⁻³, 2,000 steps, ε = 0.5, ten unrolled iterations. The
scale of the targets is ours: see `targets.py`. The third method, `debiased`, is not in the paper: the debiased sharp
loss, which is what this library recommends.
"""

from __future__ import annotations

import argparse
import functools
import sys

from experiments.analytic_differentiation.generator import METHODS, Run, train
from experiments.analytic_differentiation.report import write_report
from experiments.analytic_differentiation.targets import TARGETS
from experiments.frame import command
from experiments.frame.runs import carried_out

JUDGEMENTS = 20


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = command.parser(__doc__, "analytic_differentiation")
    parser.add_argument("--steps", type=int, help="steps of Adam (2000)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 (3)")
    command.add_choice(parser, "only", TARGETS)
    command.add_choice(parser, "methods", METHODS)
    command.add_threads(parser)
    parser.add_argument("--quick", action="store_true", help="few points and steps: shows that all works, no result")
    options = command.parsed(parser, arguments, steps=1, seeds=1)
    options.steps = options.steps or (20 if options.quick else 2000)
    return options


def planned(options: argparse.Namespace) -> list[Run]:
    """Seeds last, so that a first figure of everything is there early."""
    n, every = (64 if options.quick else 1000), max(1, options.steps // JUDGEMENTS)
    return [
        Run(target, method, seed, options.steps, n, every)
        for seed in range(options.seeds)
        for target in TARGETS
        if target in options.only
        for method in METHODS
        if method in options.methods
    ]


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    report = functools.partial(write_report, folder=options.out)
    sys.exit(carried_out(planned(options), options.out / "records", train, report))


if __name__ == "__main__":
    main()
