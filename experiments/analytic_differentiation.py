"""Does a generator learn better from the analytic derivative of the sharp loss than from an unrolled one? (Q23)

    python experiments/analytic_differentiation.py --out experiments/results/analytic_differentiation

trains a generator for each target, method and seed and writes one file a run to records/, then table.md, points.png and
curves.svg from these files. A run whose file exists is skipped, so an interrupted command goes on when it is repeated,
and parts of the work may be done by several commands (--only, --methods, --seeds).
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from resumable import finished, machine, records, say, show, until_interrupted
from toy_generator import METHODS, Run, train
from toy_report import write_report
from toy_targets import TARGETS

from sinkdiv.generative.files import write_text

JUDGEMENTS = 20


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--steps", type=int, help="steps of Adam (2000)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0")
    parser.add_argument(
        "--only", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="TARGET", help=names(TARGETS)
    )
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD", help=names(METHODS)
    )
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and of sinkdiv")
    parser.add_argument("--quick", action="store_true", help="few points and steps: shows that all works, no result")
    options = parser.parse_args(arguments)
    options.steps = options.steps if options.steps is not None else (20 if options.quick else 2000)
    for name in ("steps", "seeds", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(options, name)}")
    return options


def names(table: dict[str, Any]) -> str:
    return f"from {', '.join(table)} (all)"


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


def watch(place: str, step: int, w2: float) -> None:
    show(f"{place}: step {step}, W2² {w2:.3f}")


def work(runs: list[Run], folder: Path) -> None:
    for count, run in enumerate(runs, 1):
        place = f"{count} of {len(runs)}: {run.target}, {run.method}, seed {run.seed}"
        if finished(run, folder):
            say(f"{place}: finished before")
            continue
        start = machine()
        record = {**asdict(run), "machine": start, **train(run, functools.partial(watch, place))}
        write_text(folder / "records" / f"{run.name}.json", json.dumps(record) + "\n")
        say(f"{place}: W2² {record['w2']:.3f} in {record['seconds']:.0f} s")


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    status = until_interrupted(functools.partial(work, planned(options), options.out))
    if found := records(options.out):
        write_report(found, options.out)
    sys.exit(status)


if __name__ == "__main__":
    main()
