"""The table and the figure of the code-variance experiment, made from its records and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from experiments.frame import figures
from experiments.frame.runs import Record
from experiments.frame.tables import table, write_page

COLOURS = ("#991b1b", "#c2410c", "#1d4ed8", "#0f766e", "#7c3aed")


def write_report(records: list[Record], folder: Path) -> None:
    title = "The scale s at which codes s·N(0, I) match draws of N(0, I) best"
    write_page(folder / "table.md", title, lines(records))
    figures.save(draw(records), folder / "scales.svg")


def lines(records: list[Record]) -> Iterator[str]:
    yield "1 is right; less means codes of too small a variance, 0 that they collapse to a point. ε is relative to"
    yield "E|z−z'|² = 2d; the library's default is 0.25. Written by `experiments.code_variance` from `records/`."
    losses = list(dict.fromkeys(record["loss"] for record in records))
    for dimension, batch in sorted({(record["dimension"], record["batch"]) for record in records}):
        own = [record for record in records if (record["dimension"], record["batch"]) == (dimension, batch)]
        yield ""
        yield f"## {dimension} dimensions, batches of {batch} (mean over {own[0]['repeats']})"
        yield ""
        eps = sorted({record["relative_eps"] for record in own})
        found = {(record["loss"], record["relative_eps"]): f"{record['scale']:.2f}" for record in own}
        rows = ([loss, *(found.get((loss, value), "missing") for value in eps)] for loss in losses)
        yield from table(["loss", *(f"ε = {value:g}" for value in eps)], rows)
    yield ""
    seconds = sum(record["seconds"] for record in records)
    machine = records[0]["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield f"{len(records)} runs in {seconds:.0f} s, one thread of {machine['cpu']}; {versions}."


def draw(records: list[Record]) -> Figure:
    largest = max(record["dimension"] for record in records)
    batches = sorted({record["batch"] for record in records})
    losses = list(dict.fromkeys(record["loss"] for record in records))
    figure = figures.empty(4.8 * len(batches), 3.6)
    for axes, batch in zip(figure.subplots(1, len(batches), sharey=True, squeeze=False)[0], batches, strict=True):
        for loss, colour in zip(losses, COLOURS, strict=False):
            own = [r for r in records if (r["dimension"], r["batch"], r["loss"]) == (largest, batch, loss)]
            own.sort(key=lambda record: record["relative_eps"])
            axes.plot(
                [record["relative_eps"] for record in own], [record["scale"] for record in own],
                color=colour, marker="o", markersize=3.5, linewidth=1.4, label=loss,
            )  # fmt: skip
        axes.axhline(1, color="#64748b", linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.set_title(f"{largest} dimensions, batches of {batch}", fontsize=10, loc="left")
        axes.set_xlabel("ε / E|z−z'|²", fontsize=9)
    figure.axes[0].set_ylabel("best scale of the codes", fontsize=9)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure
