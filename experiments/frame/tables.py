"""The figures and the conditions of runs, as they stand in tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from benchmarks.frame.tables import page, table

from experiments.frame.runs import Record
from sinkdiv.generative.files import write_text

__all__ = ["averaged", "conditions", "least_seed", "load", "seeds", "table", "write_page"]


def write_page(file: Path, title: str, lines: Iterable[str]) -> None:
    """Prose is filled, tables stay as they are."""
    write_text(file, page(title, "", [lines]))


def averaged(figures: Sequence[float], digits: int) -> str:
    """mean ± standard deviation; a dash for no figures."""
    if not figures:
        return "–"
    values = torch.tensor(figures, dtype=torch.float64)
    middle = f"{values.mean():.{digits}f}"
    return middle if len(figures) == 1 else f"{middle} ± {values.std():.{digits}f}"


def seeds(found: list[Record]) -> str:
    return ", ".join(str(seed) for seed in sorted({record["seed"] for record in found}))


def least_seed(found: list[Record]) -> Record:
    return min(found, key=lambda record: record["seed"])


def conditions(found: list[Record]) -> Iterator[str]:
    """The machines and versions of the runs, for the end of a table."""
    texts = set()
    for record in found:
        place = record["machine"]
        versions = ", ".join(f"{name} {number}" for name, number in place["versions"].items())
        texts.add(f"*{place['cpu']}, threads: {place['threads']}; {versions}.*")
    yield from ["", *sorted(texts)]


def load(found: list[Record]) -> str:
    """How busy the machines were, for a sentence about times."""
    loads = [record["machine"]["load"] for record in found]
    return f"{min(loads):.0f} to {max(loads):.0f} processes on {found[0]['machine']['cores']} cores"
