"""The Markdown and the plot of the benchmark of derivatives, made from its JSON and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.derivatives.matrices import TAPED_ITERATIONS
from benchmarks.frame.book import Results
from benchmarks.frame.plots import drawn, finish, style
from benchmarks.frame.rows import Row
from benchmarks.frame.tables import error, median, our_median, page, ratio, table, timing, where

INTRODUCTION = """\
Written by `python -m benchmarks.derivatives` from `derivatives.json`. OT_ε is not debiased here, but for the
Hessian-vector products. Errors are relative, those of derivatives in L2. The reference of the sharp value is Q23's
linear system, formed and factorised in float64, up to 1000 × 1000; above, our own solve in float64. Tolerances are
norms of different kinds (see [speed.md](speed.md)): compare times at similar errors.
"""


def report(results: Results, folder: Path) -> str:
    sections = [
        [f"## {section['title']}", "", *RENDERERS[name](section), where(section)]
        for name, section in results["sections"].items()
    ]
    plot = draw(results, folder)
    pictures = [[f"![The gradient's error against the forward solve's]({plot})"]] if plot else []
    return page("Derivatives beside other libraries", INTRODUCTION, sections + pictures)


def error_tables(section: Results) -> Iterator[str]:
    yield "Every method is stopped at several of its thresholds or numbers of iterations; the marginal error is that of"
    yield "the plan it reached, L1, rows and columns together. POT, which keeps all iterations on its tape, is stopped"
    yield f"after {TAPED_ITERATIONS}. The seconds are those of one first call, with what it compiles."
    for found in section["tables"]:
        yield from ["", f"### {found['title']}", ""]
        head = ["method", "setting", "marginal error", "value error", "gradient error", "s", "note"]
        yield from table(head, map(error_cells, found["rows"]))
    yield ""


def error_cells(row: Row) -> list[str]:
    figures = [error(row.get(key)) for key in ("marginal_error", "value_error", "gradient_error")]
    seconds = f"{row['seconds']:.2g}" if "seconds" in row else "–"
    return [row["method"], f"{row['setting']:g}", *figures, seconds, row["note"]]


def races(before: str, full: str) -> Callable[[Results], Iterator[str]]:
    """Tables of two calls: ``before``, and ``full`` with the derivative."""

    def render(section: Results) -> Iterator[str]:
        yield "Medians [quartiles] of interleaved turns. `added`: the time beyond the first call, relative to it."
        yield "`ratio`: of the second call to that of the first row. Errors are those of the second call."
        head = ["method", f"{before}, s", f"{full}, s", "added", "ratio", "value error", "derivative error", "note"]
        for found in section["tables"]:
            yield from ["", f"### {found['title']}", "", judged(found["reference"]), ""]
            base = our_median(found["rows"])
            yield from table(head, (race_cells(row, base) for row in found["rows"]))
        yield ""

    return render


def race_cells(row: Row, base: float | None) -> list[str]:
    errors = row.get("errors", {})
    return [
        row["method"], timing(row["before"]), timing(row["seconds"]), added(row), ratio(row["seconds"], base),
        error(errors.get("value")), error(errors.get("gradient")), row["note"],
    ]  # fmt: skip


def judged(reference: Results) -> str:
    state = "" if reference["converged"] else " It did NOT reach its tolerance."
    own = f", whose own error is below {reference['uncertainty']:.0e}" if "uncertainty" in reference else ""
    return f"Reference: {reference['kind']}{own}; value {reference['value']:.9g}.{state}"


def added(row: Row) -> str:
    if not row["before"] or not row["seconds"]:
        return "–"
    return f"{median(row['seconds']) / median(row['before']) - 1:.2g} ×"


def memory_table(section: Results) -> Iterator[str]:
    yield "Two cubes in 3-D, blur .05, float32. The peak is over what the process held before it made the points."
    yield "Methods with the same L agree in value and gradient, up to the order of their updates."
    yield ""
    head = ["method", "n = m", "peak, MB", "bytes per point", "s", "value", "norm of the gradient", "note"]
    yield from table(head, map(memory_cells, section["rows"]))
    yield ""


def memory_cells(row: Row) -> list[str]:
    n, figures = row["n"], ["–"] * 5
    if "value" in row:
        peak = row["peak_bytes"]
        figures = [f"{peak / 1e6:,.1f}", f"{peak / (2 * n):,.0f}"]
        figures += [f"{row[key]:.4g}" for key in ("seconds", "value", "gradient_norm")]
    return [row["method"], f"{n:,}", *figures, row.get("note", "")]


RENDERERS: dict[str, Callable[[Results], Iterator[str]]] = {
    "errors": error_tables,
    "times": races("value", "value and gradient"),
    "memory": memory_table,
    "hessian": races("value and gradient", "with the product"),
}


def draw(results: Results, folder: Path) -> str | None:
    """The plot of the section on errors, if there is one and matplotlib; the name of its file."""
    if "errors" not in results["sections"]:
        return None
    tables = results["sections"]["errors"]["tables"]
    size = (3.4 * len(tables), 3.6)
    return drawn(
        folder / "derivatives.svg", lambda figure: draw_errors(figure, tables), figsize=size, layout="constrained"
    )


def draw_errors(figure: Any, tables: list[Results]) -> None:
    panels = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    for axes, found in zip(panels, tables, strict=True):
        for name in dict.fromkeys(row["method"] for row in found["rows"]):
            points = [
                (row["marginal_error"], row["gradient_error"])
                for row in found["rows"]
                if row["method"] == name and "gradient_error" in row
            ]
            if points:
                line = "--" if "unrolled" in name or "linear solver" in name else "-"
                axes.loglog(*zip(*points, strict=True), label=name, linestyle=line, **style(name))
        axes.invert_xaxis()
        axes.set_title(found["title"].replace(", ε", "\nε"), fontsize=9)
        axes.set_xlabel("L1 marginal error of the plan")
        finish(axes)
    panels[0].set_ylabel("relative error of the gradient in C")
    if panels[0].has_data():
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
