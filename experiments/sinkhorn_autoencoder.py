"""The table of the Sinkhorn autoencoder's paper (Patrini et al. 2019: P19), ours beside theirs.

    python experiments/sinkhorn_autoencoder.py --runs runs/sae --out experiments/results/sinkhorn_autoencoder

trains every row of `table_rows.py` on MNIST (three seeds) and Fashion-MNIST (one), scores it, and writes one record a
run to records/, then table.md and pictures from these records. Finished runs are skipped and interrupted ones go on, so
the command may be stopped with Ctrl-C, repeated, and split over processes (--data, --only, --seeds). Rows without
records are listed as missing. --score-again evaluates finished runs anew.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

import torch
from resumable import machine, records, until_interrupted
from table_report import write_report
from table_rows import DATA, ROWS, Row
from training_runs import trained

from sinkdiv.generative import finishing
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.files import write_text
from sinkdiv.generative.runs import RunFolder


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs, several hundred megabytes")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), help="(all)")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, help="(as planned: 0 1 2 for mnist, 0 for fashion-mnist)")
    parser.add_argument("--max-epochs", type=int, help="(as planned)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and of sinkdiv")
    parser.add_argument("--score-again", action="store_true", help="evaluate finished runs anew; trains nothing")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, not {options.threads}")
    return options


def planned(options: argparse.Namespace) -> list[tuple[str, Row, int]]:
    """Seeds first, then data, then rows, so that a whole table of one seed is there early."""
    chosen = [(data, seed) for data in options.data for seed in (options.seeds or DATA[data].seeds)]
    return [
        (data, ROWS[name], seed)
        for data, seed in sorted(chosen, key=lambda pair: pair[1])
        for name in ROWS
        if name in options.only and not (ROWS[name].once and (data, seed) != ("mnist", 0))
    ]


def record_of(run: RunFolder, row: Row, data: str, seed: int) -> dict[str, Any]:
    metrics = run.load_metrics() or {}
    return {"row": row.name, "data": data, "seed": seed, "machine": machine(), "metrics": metrics}


def work(options: argparse.Namespace) -> None:
    runs = planned(options)
    for count, (data, row, seed) in enumerate(runs, 1):
        name = f"{data}-{row.name}-{seed}"
        place = f"{count} of {len(runs)}: {name}"
        root, file = options.runs / name, options.out / "records" / f"{name}.json"
        if options.score_again:
            if not RunFolder(root).metrics.exists():
                continue
            finishing.evaluate(RunFolder(root))
        else:
            epochs = options.max_epochs or DATA[data].epochs
            given = row.settings | {"data": data, "binarize": DATA[data].binarize, "seed": seed, "max_epochs": epochs}
            sys.stderr.write(f"{place}\n")
            trained(root, AutoencoderConfig, given)
        write_text(file, json.dumps(record_of(RunFolder(root), row, data, seed), indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    status = until_interrupted(functools.partial(work, options))
    if found := records(options.out):
        write_report(found, options.out, options.runs)
    sys.exit(status)


if __name__ == "__main__":
    main()
