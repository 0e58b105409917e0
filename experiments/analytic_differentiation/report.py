"""The table and the figures of the toy generators, made from the files of the finished runs and nothing else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from experiments.analytic_differentiation.generator import METHODS
from experiments.analytic_differentiation.targets import TARGETS
from experiments.frame import figures
from experiments.frame.runs import Record
from experiments.frame.tables import averaged, conditions, least_seed, seeds, table, write_page

COLOURS = {"implicit": "#0f766e", "unrolled": "#c2410c", "debiased": "#1d4ed8"}


def write_report(records: list[Record], folder: Path) -> None:
    targets = [name for name in TARGETS if any(record["target"] == name for record in records)]
    methods = [name for name in METHODS if any(record["method"] == name for record in records)]
    title = "Toy generators: implicit against unrolled derivatives"
    write_page(folder / "table.md", title, lines(records, targets, methods))
    figures.save(draw_points(records, targets, methods), folder / "points.png")
    figures.save(draw_curves(records, targets, methods), folder / "curves.svg")


def lines(records: list[Record], targets: list[str], methods: list[str]) -> Iterator[str]:
    steps, n = sorted({record["steps"] for record in records}), sorted({record["n"] for record in records})
    yield "W2² between fresh samples of the trained generator and the sample it was trained on, by linear assignment,"
    yield f"and the seconds of its {' or '.join(map(str, steps))} steps (n = {' or '.join(map(str, n))}); mean ±"
    yield "standard deviation over the seeds. `fresh sample`: what other samples of the target itself get."
    yield "Written by `experiments.analytic_differentiation` from the files in `records/`."
    yield ""
    head = ["target", "fresh sample", *(title for name in methods for title in (f"{name}, W2²", "s")), "seeds"]
    yield from table(head, (cells([one for one in records if one["target"] == target], methods) for target in targets))
    yield ""
    yield from ratios(records, methods)
    yield from warned(records)
    yield from conditions(records)


def cells(own: list[Record], methods: list[str]) -> list[str]:
    found = [own[0]["target"], f"{statistics.mean(record['w2_target'] for record in own):.3f}"]
    for method in methods:
        mine = [record for record in own if record["method"] == method]
        found += [
            averaged([record["w2"] for record in mine], 3),
            averaged([record["seconds"] for record in mine], 0),
        ]
    return [*found, seeds(own)]


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


def warned(records: list[Record]) -> Iterator[str]:
    yield f"Warnings during these {len(records)} runs: {sum(record['warnings_count'] for record in records)}."
    for text in sorted({text for record in records for text in record["warnings"]})[:5]:
        yield f"- {text}"


def draw_points(records: list[Record], targets: list[str], methods: list[str]) -> Figure:
    """Generated points over the sample, at the least seed of each pair."""
    figure = figures.empty(2.6 * len(methods), 2.5 * len(targets))
    panels = figure.subplots(len(targets), len(methods), squeeze=False)
    for row, target in zip(panels, targets, strict=True):
        for axes, method in zip(row, methods, strict=True):
            axes.set(aspect="equal", xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            mine = [record for record in records if (record["target"], record["method"]) == (target, method)]
            if not mine:
                continue
            record = least_seed(mine)
            data = TARGETS[target](record["n"], record["seed"])
            axes.scatter(*data.T, s=3, color="#b8c4d6", linewidths=0)
            axes.scatter(*zip(*record["points"], strict=True), s=3, color=COLOURS[method], linewidths=0)
            axes.set_title(f"{target}, {method}: W2² = {record['w2']:.3f}", fontsize=9)
    return figure


def draw_curves(records: list[Record], targets: list[str], methods: list[str]) -> Figure:
    """W2² against the seconds spent on steps, one line a run."""
    figure = figures.empty(3.2 * len(targets), 2.9)
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
