"""The Markdown and the plot of the solvers' benchmark, made from its JSON and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.frame.book import Results
from benchmarks.frame.plots import drawn
from benchmarks.frame.tables import page, table
from benchmarks.solvers.sections import MOST, TOLERANCES, Counts

CELLS = "Cells: mean / largest / number that failed, over the problems; a failure counts with the limit."
SHOWN = {
    "alternating": "#9a9a9a", "SOR, adaptive": "#c49c6b", "L-BFGS 8": "#7b9e87", "Newton-CG": "#8a7fb5",
    "Anderson 8": "#6b8fc4", "sinkdiv": "#c0392b",
}  # fmt: skip


def report(results: Results, folder: Path) -> str:
    found = results["sections"]
    sections = [
        [f"## {section['title']}", "", *(["**Reduced sizes: no result.**", ""] * (section["size"] != "full")),
         *RENDERERS.get(name, group_tables)(section)]
        for name, section in found.items()
    ]  # fmt: skip
    if "suite" in found:
        names = found["suite"]["methods"]
        size = {"figsize": (9, 7), "layout": "constrained", "dpi": 110}
        plot = drawn(folder / "solvers.png", lambda figure: draw(figure, names), **size)
        sections += [[f"![Passes to 1e-3]({plot})"]] if plot else []
    introduction = (
        "Written by `python -m benchmarks.solvers` from `solvers.json`. A pass is one softmin over all pairs."
    )
    return page("Passes to a marginal error", introduction, sections)


def suite_tables(section: Results) -> Iterator[str]:
    methods = section["methods"]
    yield f"torch {section['torch']}; {section['points']} points a side. –: not within {MOST}."
    yield ""
    problems = list(dict.fromkeys(name for counts in methods.values() for name in counts))
    rows = ([name, *(cell(counts.get(name)) for counts in methods.values())] for name in problems)
    yield from table(["problem", *methods], rows)
    yield from ["", f"{CELLS} Newton-CG: balanced problems only.", ""]
    totals = ([method, *summary(list(counts.values()), MOST)] for method, counts in methods.items())
    yield from table(["method", *(f"{tol:g}" for tol in TOLERANCES)], totals)


def cell(counts: Counts | None) -> str:
    return "" if counts is None else " / ".join("–" if passes is None else str(passes) for passes in counts)


def group_tables(section: Results) -> Iterator[str]:
    most = section["most"]
    yield from [f"{CELLS} Limit {most}.", ""]
    rows = (
        [f"{group} ({len(counts)})", name, *summary(counts, most)]
        for group, solvers in section["groups"].items()
        for name, counts in solvers.items()
    )
    yield from table(["problems (how many)", "solver", *(f"{tol:g}" for tol in section["tolerances"])], rows)
    if all("alternating" in solvers for solvers in section["groups"].values()):
        yield from ["", lost(section["groups"])]


def summary(counts: list[Counts], most: int) -> list[str]:
    """For each tolerance: mean, largest, number that failed; a failure counts with the limit."""
    cells = []
    for column in zip(*counts, strict=True):
        filled = [most if passes is None else passes for passes in column]
        failures = sum(passes is None for passes in column)
        cells.append(f"{sum(filled) / len(filled):.1f} / {max(filled)} / {failures}")
    return cells


def lost(counts: dict[str, dict[str, list[Counts]]]) -> str:
    """In how many problems, at any tolerance, alternating succeeded and the library did not."""
    pairs = [
        (ours, theirs)
        for group in counts.values()
        for our_row, their_row in zip(group["sinkdiv"], group["alternating"], strict=True)
        for ours, theirs in zip(our_row, their_row, strict=True)
    ]
    failures = sum(ours is None and theirs is not None for ours, theirs in pairs)
    return f"Pairs of problem and tolerance that only alternating solved: {failures} of {len(pairs)}."


def warm_table(section: Results) -> Iterator[str]:
    rows = (
        [row["kind"], f"{row['move']:g}", *(f"{row[start] / row['problems']:.1f}" for start in ("cold", "warm"))]
        for row in section["rows"]
    )
    yield from table(["problems", "points moved by (lengths of ε)", "passes, cold", "passes, warm"], rows)


RENDERERS: dict[str, Callable[[Results], Iterator[str]]] = {"suite": suite_tables, "warm": warm_table}


def draw(figure: Any, counts: dict[str, dict[str, Counts]]) -> None:
    """The passes to 1e-3 of some methods on each problem, the hardest for alternating at the top."""
    names = sorted(counts["alternating"], key=lambda name: counts["alternating"][name][1] or MOST)
    axes = figure.subplots()
    for method, colour in SHOWN.items():
        passes = [(counts[method].get(name, [None, None])[1], row) for row, name in enumerate(names)]
        met = [(count, row) for count, row in passes if count is not None]
        axes.scatter(*zip(*met, strict=True), s=60 if method == "sinkdiv" else 34, color=colour, label=method, zorder=3)
        missed = [
            row for (count, row), name in zip(passes, names, strict=True) if count is None and name in counts[method]
        ]
        axes.scatter([1.25 * MOST] * len(missed), missed, marker="x", color=colour, zorder=3)
    axes.set(xscale="log", xlabel=f"passes to a marginal error of 1e-3 (×: not within {MOST})")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
