"""The table and the figures of the toy generators, made from the files of the finished runs and nothing else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import resumable
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from resumable import spread
from toy_generator import METHODS
from toy_targets import TARGETS

from sinkdiv.generative.files import replacing, write_text

Record = dict[str, Any]
COLOURS = {"implicit": "#0f766e", "unrolled": "#c2410c", "debiased": "#1d4ed8"}


def write_report(records: list[Record], folder: Path) -> None:
    targets = [name for name in TARGETS if any(record["target"] == name for record in records)]
    methods = [name for name in METHODS if any(record["method"] == name for record in records)]
    write_text(folder / "table.md", "\n".join(table(records, targets, methods)) + "\n")
    with rc_context({"svg.hashsalt": "sinkdiv"}):
        save(draw_points(records, targets, methods), folder / "points.png")
        save(draw_curves(records, targets, methods), folder / "curves.svg")


def table(records: list[Record], targets: list[str], methods: list[str]) -> Iterator[str]:
    steps, n = sorted({record["steps"] for record in records}), sorted({record["n"] for record in records})
    yield "# Toy generators: implicit against unrolled derivatives"
    yield ""
    yield "W2² between fresh samples of the trained generator and the sample it was trained on, by linear assignment,"
    yield f"and the seconds of its {' or '.join(map(str, steps))} steps (n = {' or '.join(map(str, n))}); mean ±"
    yield "standard deviation over the seeds. `fresh sample`: what other samples of the target itself get."
    yield "Written by `analytic_differentiation.py` from the files in `records/`."
    yield ""
    yield "| target | fresh sample | " + " | ".join(f"{name}, W2² | s" for name in methods) + " | seeds |"
    yield "|---" * (3 + 2 * len(methods)) + "|"
    for target in targets:
        own = [record for record in records if record["target"] == target]
        cells = [target, f"{statistics.mean(record['w2_target'] for record in own):.3f}"]
        for method in methods:
            mine = [record for record in own if record["method"] == method]
            cells += [spread([record["w2"] for record in mine], 3), spread([record["seconds"] for record in mine], 0)]
        seeds = sorted({record["seed"] for record in own})
        yield "| " + " | ".join([*cells, ", ".join(map(str, seeds))]) + " |"
    yield ""
    yield from ratios(records, methods)
    yield from conditions(records)


def ratios(records: list[Record], methods: list[str]) -> Iterator[str]:
    """Time relative to the first method, over the runs that both have."""
    first = methods[0]
    time = {key(record): record["milliseconds_a_step"] for record in records}
    for method in methods[1:]:
        pairs = [(time[t, first, s], each) for (t, m, s), each in time.items() if m == method and (t, first, s) in time]
        if pairs:
            ratio = math.exp(statistics.mean(math.log(other / base) for base, other in pairs))
            yield f"A step with the {method} derivative takes {ratio:.2g} times as long as with the {first} one."
    yield ""


def key(record: Record) -> tuple[str, str, int]:
    return record["target"], record["method"], record["seed"]


def conditions(records: list[Record]) -> Iterator[str]:
    warned = sum(record["warnings_count"] for record in records)
    yield f"Warnings during these {len(records)} runs: {warned}."
    for text in sorted({text for record in records for text in record["warnings"]})[:5]:
        yield f"- {text}"
    yield ""
    yield resumable.conditions(records)


def draw_points(records: list[Record], targets: list[str], methods: list[str]) -> Figure:
    """Generated points over the sample, at the least seed of each pair."""
    figure = Figure(figsize=(2.6 * len(methods), 2.5 * len(targets)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(targets), len(methods), squeeze=False)
    for row, target in zip(panels, targets, strict=True):
        for axes, method in zip(row, methods, strict=True):
            axes.set(aspect="equal", xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            mine = [record for record in records if (record["target"], record["method"]) == (target, method)]
            if not mine:
                continue
            record = min(mine, key=lambda record: record["seed"])
            data = TARGETS[target](record["n"], record["seed"])
            axes.scatter(*data.T, s=3, color="#b8c4d6", linewidths=0)
            axes.scatter(*zip(*record["points"], strict=True), s=3, color=COLOURS[method], linewidths=0)
            axes.set_title(f"{target}, {method}: W2² = {record['w2']:.3f}", fontsize=9)
    return figure


def draw_curves(records: list[Record], targets: list[str], methods: list[str]) -> Figure:
    """W2² against the seconds spent on steps, one line a run."""
    figure = Figure(figsize=(3.2 * len(targets), 2.9), layout="constrained")
    for axes, target in zip(figure.subplots(1, len(targets), squeeze=False)[0], targets, strict=True):
        own = [record for record in records if record["target"] == target]
        for method in methods:
            for count, record in enumerate(record for record in own if record["method"] == method):
                _, seconds, w2 = zip(*record["curve"][1:], strict=True)
                label = None if count else method
                axes.loglog(seconds, w2, color=COLOURS[method], linewidth=1.2, label=label)
        floor = statistics.mean(record["w2_target"] for record in own)
        axes.axhline(floor, color="grey", linestyle=":", linewidth=1, label="fresh sample")
        axes.set(title=target, xlabel="seconds", ylabel="W2²")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7)
    return figure


def save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(temporary, dpi=80, metadata=metadata)
