"""The options that the commands of experiments share, and how they are checked."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable
from pathlib import Path

import torch

RESULTS = Path("experiments/results")


def parser(description: str | None, name: str) -> ArgumentParser:
    made = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, default=RESULTS / name, help=f"folder of the results ({RESULTS / name})")
    return made


def add_choice(parser: ArgumentParser, name: str, choices: Iterable[str]) -> None:
    """An option that takes some of the choices; all if it is left out."""
    every = list(choices)
    parser.add_argument(
        f"--{name}", nargs="+", choices=every, default=every, metavar=name.upper(), help=f"of {', '.join(every)} (all)"
    )


def add_trainer(parser: ArgumentParser, name: str, max_epochs: int | None) -> None:
    """The options of experiments whose runs are the trainer's."""
    parser.add_argument("--runs", type=Path, default=Path("runs") / name, help=f"folder of the runs (runs/{name})")
    planned = "as planned" if max_epochs is None else max_epochs
    parser.add_argument("--max-epochs", type=int, default=max_epochs, help=f"({planned})")


def add_threads(parser: ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and of sinkdiv (1)")


def parsed(parser: ArgumentParser, arguments: list[str] | None, **least: int) -> Namespace:
    """The options; those named in ``least`` are at least so large. PyTorch gets the threads that are asked for."""
    options = parser.parse_args(arguments)
    for name, bound in {"threads": 1, "max_epochs": 1, **least}.items():
        value = getattr(options, name, None)
        smallest = min(value) if isinstance(value, (list, tuple)) else value
        if smallest is not None and smallest < bound:
            parser.error(f"--{name.replace('_', '-')} must be at least {bound}, not {smallest}")
    if hasattr(options, "threads"):
        torch.set_num_threads(options.threads)
    return options
