"""The table of the Sinkhorn autoencoder's paper (Patrini et al. 2019: P19), ours beside theirs.

    python -m experiments.sinkhorn_autoencoder

trains every row of `rows.py` on MNIST (three seeds) and Fashion-MNIST (one), scores it, and writes one record a run to
records/, then table.md and pictures from these records. Finished runs are skipped and interrupted ones go on, so the
command may be stopped with Ctrl-C, repeated, and split over processes (--data, --only, --seeds). Rows without records
are listed as missing. --score-again evaluates finished runs anew. The runs take several hundred megabytes.
"""

from __future__ import annotations

import argparse
import functools
import sys
from dataclasses import dataclass
from pathlib import Path

from experiments.frame import command
from experiments.frame.runs import Record, carried_out
from experiments.frame.training import trained
from experiments.sinkhorn_autoencoder.report import write_report
from experiments.sinkhorn_autoencoder.rows import DATA, ROWS
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.results import evaluate
from sinkdiv.generative.runs import RunFolder


@dataclass(frozen=True)
class Run:
    row: str
    data: str
    seed: int
    max_epochs: int

    @property
    def name(self) -> str:
        return f"{self.data}-{self.row}-{self.seed}"


def planned(options: argparse.Namespace) -> list[Run]:
    """Seeds first, then data, then rows, so that a whole table of one seed is there early."""
    chosen = [(data, seed) for data in options.data for seed in (options.seeds or DATA[data].seeds)]
    return [
        Run(name, data, seed, options.max_epochs or DATA[data].epochs)
        for data, seed in sorted(chosen, key=lambda pair: pair[1])
        for name in ROWS
        if name in options.only and not (ROWS[name].once and (data, seed) != ("mnist", 0))
    ]


def train(folder: Path, run: Run) -> Record:
    given = {"data": run.data, "binarize": DATA[run.data].binarize, "seed": run.seed, "max_epochs": run.max_epochs}
    finished = trained(folder / run.name, AutoencoderConfig, ROWS[run.row].settings | given)
    return {"metrics": finished.load_metrics() or {}}


def score_again(folder: Path, run: Run) -> Record:
    finished = RunFolder(folder / run.name)
    evaluate(finished)
    return {"metrics": finished.load_metrics() or {}}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = command.parser(__doc__, "sinkhorn_autoencoder")
    command.add_trainer(parser, "sae", max_epochs=None)
    command.add_choice(parser, "data", DATA)
    command.add_choice(parser, "only", ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, help="(as planned: 0 1 2 for mnist, 0 for fashion-mnist)")
    parser.add_argument("--score-again", action="store_true", help="evaluate finished runs anew; trains nothing")
    command.add_threads(parser)
    return command.parsed(parser, arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    runs, do = planned(options), train
    if options.score_again:
        runs, do = [run for run in runs if RunFolder(options.runs / run.name).metrics.exists()], score_again
    report = functools.partial(write_report, folder=options.out, runs=options.runs)
    do_in = functools.partial(do, options.runs)
    sys.exit(carried_out(runs, options.out / "records", do_in, report, again=options.score_again))


if __name__ == "__main__":
    main()
