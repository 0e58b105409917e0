"""The Markdown of the benchmark of training steps, made from its JSON and nothing else."""

from __future__ import annotations

from pathlib import Path

from benchmarks.frame.book import Results
from benchmarks.frame.clock import quartiles
from benchmarks.frame.rows import Row
from benchmarks.frame.tables import median, page, table, where

INTRODUCTION = """\
Written by `python -m benchmarks.training` from `training_step.json`. Every loss trains a model of its own, all
from the same weights, on the same batches, in turns of one step. A loss's part of the step is drawing from the prior,
the loss, and its gradient with respect to the encoder's outputs (or the generator's images); the rest is forward and
backward through the networks, reconstruction, and the optimiser. Times are the processor's, on one thread, so that
other programs' turns do not count; but where others were running ("load"), caches and memory were shared with them."""


def report(results: Results, _: Path) -> str:
    return page("The loss's share of a training step", INTRODUCTION, map(of_section, results["sections"].values()))


def of_section(section: Results) -> list[str]:
    head = ["loss", "loss, ms [quartiles]", "step, ms [quartiles]", "share of the step"]
    rows = ([row["loss"], *cells(row)] for row in section["rows"])
    steps = f"{len(section['rows'][0]['step_seconds'])} steps each."
    return [f"## {section['title']}", "", *table(head, rows), "", steps, "", where(section)]


def cells(row: Row) -> list[str]:
    loss, step = (
        "{1} [{0}–{2}]".format(*(milliseconds(value) for value in quartiles(row[key])))
        for key in ("loss_seconds", "step_seconds")
    )
    return [loss, step, f"{100 * share(row):.2g} %"]


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}" if seconds >= 1 else f"{1e3 * seconds:.3g}"


def share(row: Row) -> float:
    """The median, over steps, of the loss's part."""
    parts = [loss / whole for loss, whole in zip(row["loss_seconds"], row["step_seconds"], strict=True)]
    return median(parts)
