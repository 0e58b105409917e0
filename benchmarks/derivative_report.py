"""The Markdown and the plot of the benchmark of derivatives, made from its JSON and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from derivative_matrices import TAPED_ITERATIONS
from measuring import quartiles
from report import finish, number, our_median, ratio, spread, style, where

Results = dict[str, Any]


def markdown(results: Results, plot: str | None) -> str:
    lines = ["# Derivatives beside other libraries", "", *introduction(), ""]
    for name, section in results["sections"].items():
        lines += [f"## {section['title']}", "", *RENDERERS[name](section), *where(section), ""]
    if plot:
        lines.append(f"![The gradient's error against the forward solve's]({plot})")
    return "\n".join(lines).rstrip() + "\n"


def introduction() -> list[str]:
    return [
        "Written by `python benchmarks/derivatives.py` from `derivatives.json`. OT_ε is not debiased here, but for the "
        "Hessian-vector products. Errors are relative, those of derivatives in L2. The reference of the sharp value is "
        "Q23's linear system, formed and factorised in float64, up to 1000 × 1000; above, our own solve in float64. "
        "Tolerances are norms of different kinds (see [speed.md](speed.md)): compare times at similar errors.",
    ]


def error_tables(section: Results) -> Iterator[str]:
    yield "Every method is stopped at several of its thresholds or numbers of iterations; the marginal error is that of"
    yield "the plan it reached, L1, rows and columns together. POT, which keeps all iterations on its tape, is stopped"
    yield f"after {TAPED_ITERATIONS}. The seconds are those of one first call, with what it compiles."
    for table in section["tables"]:
        yield from ["", f"### {table['title']}", ""]
        yield "| method | setting | marginal error | value error | gradient error | s | note |"
        yield "|---|---|---|---|---|---|---|"
        for row in table["rows"]:
            figures = [number(row.get(key)) for key in ("marginal_error", "value_error", "gradient_error")]
            seconds = f"{row['seconds']:.2g}" if "seconds" in row else "–"
            yield "| " + " | ".join([row["method"], f"{row['setting']:g}", *figures, seconds, safe(row["note"])]) + " |"
    yield ""


def races(before: str, full: str) -> Callable[[Results], Iterator[str]]:
    """Tables of two calls: ``before``, and ``full`` with the derivative."""

    def render(section: Results) -> Iterator[str]:
        yield "Medians [quartiles] of interleaved turns. `added`: the time beyond the first call, relative to it."
        yield "`ratio`: of the second call to that of the first row. Errors are those of the second call."
        for table in section["tables"]:
            yield from ["", f"### {table['title']}", "", judged(table["reference"]), ""]
            yield f"| method | {before}, s | {full}, s | added | ratio | value error | derivative error | note |"
            yield "|---|---|---|---|---|---|---|---|"
            base = our_median(table["rows"])
            for row in table["rows"]:
                found = row.get("errors", {})
                cells = [
                    row["method"], spread(row["before"]), spread(row["seconds"]), added(row),
                    ratio(row["seconds"], base), number(found.get("value")), number(found.get("gradient")),
                    safe(row["note"]),
                ]  # fmt: skip
                yield "| " + " | ".join(cells) + " |"
        yield ""

    return render


def judged(reference: Results) -> str:
    state = "" if reference["converged"] else " It did NOT reach its tolerance."
    own = f", whose own error is below {reference['uncertainty']:.0e}" if "uncertainty" in reference else ""
    return f"Reference: {reference['kind']}{own}; value {reference['value']:.9g}.{state}"


def added(row: Results) -> str:
    if not row["before"] or not row["seconds"]:
        return "–"
    before, full = (quartiles(row[key])[1] for key in ("before", "seconds"))
    return f"{full / before - 1:.2g} ×"


def memory_table(section: Results) -> Iterator[str]:
    yield "Two cubes in 3-D, blur .05, float32. The peak is over what the process held before it made the points."
    yield "Methods with the same L agree in value and gradient, up to the order of their updates."
    yield ""
    yield "| method | n = m | peak, MB | bytes per point | s | value | norm of the gradient | note |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in section["rows"]:
        n, peak = row["n"], row.get("peak_bytes")
        measured = "value" in row
        cells = [
            row["method"], f"{n:,}", f"{peak / 1e6:,.1f}" if measured else "–",
            f"{peak / (2 * n):,.0f}" if measured else "–",
            *(f"{row[key]:.4g}" if measured else "–" for key in ("seconds", "value", "gradient_norm")),
            safe(row.get("note", "")),
        ]  # fmt: skip
        yield "| " + " | ".join(cells) + " |"
    yield ""


def safe(note: str) -> str:
    return note.replace("|", "\\|")


RENDERERS: dict[str, Callable[[Results], Iterator[str]]] = {
    "errors": error_tables,
    "times": races("value", "value and gradient"),
    "memory": memory_table,
    "hessian": races("value and gradient", "with the product"),
}


def draw(results: Results, folder: Path) -> str | None:
    """The plot of the section on errors, if there is one and matplotlib; the name of its file."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        return None
    if "errors" not in results["sections"]:
        return None
    tables = results["sections"]["errors"]["tables"]
    figure = Figure(figsize=(3.4 * len(tables), 3.6), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    for axes, table in zip(panels, tables, strict=True):
        for name in dict.fromkeys(row["method"] for row in table["rows"]):
            points = [
                (row["marginal_error"], row["gradient_error"])
                for row in table["rows"]
                if row["method"] == name and "gradient_error" in row
            ]
            if points:
                line = "--" if "unrolled" in name or "linear solver" in name else "-"
                axes.loglog(*zip(*points, strict=True), label=name, linestyle=line, **style(name))
        axes.invert_xaxis()
        axes.set_title(table["title"].replace(", ε", "\nε"), fontsize=9)
        axes.set_xlabel("L1 marginal error of the plan")
        finish(axes)
    panels[0].set_ylabel("relative error of the gradient in C")
    if panels[0].has_data():
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    with matplotlib.rc_context({"svg.hashsalt": "sinkdiv"}):
        figure.savefig(folder / "derivatives.svg", metadata={"Date": None})
    return "derivatives.svg"
