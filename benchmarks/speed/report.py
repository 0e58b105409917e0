"""The Markdown and the plots of the speed benchmark, made from its JSON and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.frame.book import Results
from benchmarks.frame.plots import drawn, finish, style
from benchmarks.frame.rows import Row
from benchmarks.frame.tables import error, median, milliseconds, number, our_median, page, ratio, table, timing, where

INTRODUCTION = """\
Written by `python -m benchmarks.speed` from `speed.json`, which holds every single time. Times are wall times of value
and gradient in x: the median [lower quartile, upper quartile] of interleaved turns, after a first use that is reported
beside it (import and compilation, and what is compiled for the sizes at hand; KeOps keeps what it compiled between
runs). Everybody gets the same float32 inputs. Errors are relative, the gradient's in L2, against a float64 solve whose
certified interval is printed. **Tolerances are norms of different kinds**: sinkdiv's bounds the L1 error of both
marginals together, POT's the L2 norm of one marginal's error, OTT's the L1 error of one marginal; GeomLoss runs a fixed
schedule without a test. So compare times at similar errors. Ratios are to the first row of sinkdiv: above 1 is slower.
"""


def report(results: Results, folder: Path) -> str:
    plots = draw(results, folder)
    sections = [
        [f"## {section['title']}", "", *RENDERERS.get(name, races)(section), where(section)]
        for name, section in results["sections"].items()
    ]
    return page(
        "Speed beside other libraries", INTRODUCTION, [*sections, *([f"![{Path(p).stem}]({p})"] for p in plots)]
    )


def races(section: Results) -> Iterator[str]:
    for race in section["tables"]:
        yield from [f"### {race['title']}", "", exact_value(race), ""]
        base = our_median(race["rows"])
        head = ["method", "seconds", "ratio", "value error", "gradient error", "first use, s", "note"]
        yield from table(head, (race_cells(row, base) for row in race["rows"]))
        yield ""


def race_cells(row: Row, base: float | None) -> list[str]:
    errors = row.get("errors", {})
    return [
        row["method"], timing(row["seconds"]), ratio(row["seconds"], base), error(errors.get("value")),
        error(errors.get("gradient")), first_use(row), note(row),
    ]  # fmt: skip


def exact_value(race: Results) -> str:
    if race.get("reference") is None:
        interval = race.get("interval")
        return f"Exact value in [{interval['lower']:.7g}, {interval['upper']:.7g}]." if interval else "No reference."
    exact = race["reference"]
    first = "" if exact["problems"] == 1 else f" of the first of {exact['problems']} problems"
    state = "" if exact["converged"] else f" The reference did NOT reach its tolerance of {exact['tol']:.0e}."
    return (
        f"Exact value{first} in [{exact['lower']:.10g}, {exact['upper']:.10g}], "
        f"relative width at most {exact['relative_width']:.1e}.{state}"
    )


def first_use(row: Row) -> str:
    parts = [row[key] for key in ("first_use_s", "prepare_s") if row.get(key, 0) > 0.05]
    return " + ".join(f"{part:.1f}" for part in parts) or "–"


def note(row: Row) -> str:
    texts = [row["note"]] if row["note"] else []
    if "value_at_most" in row.get("errors", {}):
        texts.append(f"value error at most {row['errors']['value_at_most']:.1e}")
    if "details" in row:
        details = row["details"]
        texts.append("converged" if details["converged"] else "NOT converged")
        texts.append("passes " + ", ".join(f"{name} {count}" for name, count in details["passes"].items()))
    return "; ".join(texts)


def pass_tables(section: Results) -> Iterator[str]:
    yield (
        f"The floor comes from this machine's fastest float32 matrix product, {section['product_rate'] / 1e9:.0f} "
        f"Gflop/s: a pair is charged d fused multiply-adds for its distance and {section['slots']} for the polynomial "
        "of its exponential, everything else nothing. The error is the largest of the logsumexp, absolute, on 500 "
        "rows against float64."
    )
    for race in section["tables"]:
        base = our_median(race["rows"])
        yield from ["", f"### {race['title']}", "", f"Floor: {milliseconds(race['floor_s'])} ms.", ""]
        head = ["method", "seconds", "ratio", "pairs per second", "of the floor", "error", "note"]
        yield from table(head, (pass_cells(row, base) for row in race["rows"]))
    yield ""


def pass_cells(row: Row, base: float | None) -> list[str]:
    rate = [f"{row['pairs_per_s']:.2g}", f"{100 * row['of_floor']:.0f} %"] if row["seconds"] else ["–", "–"]
    times = timing(row["seconds"]), ratio(row["seconds"], base)
    return [row["method"], *times, *rate, error(row.get("error")), row["note"]]


def kind_tables(section: Results) -> Iterator[str]:
    yield "`softmin` is a solver's pass, `plan_gradient` that of a first derivative in the points."
    yield "`weighted_marginals` and `weighted_gradient` belong to the derivative of the sharp value, the two tangents"
    yield "to second derivatives:"
    yield "with all points moving, or those of the rows alone."
    for race in section["tables"]:
        yield from ["", f"### {race['title']}", ""]
        rows = ([row["method"], timing(row["seconds"]), f"{row['pairs_per_s']:.2g}"] for row in race["rows"])
        yield from table(["pass", "seconds", "pairs per second"], rows)
    yield ""


def growth_table(section: Results) -> Iterator[str]:
    """Median seconds, one row for each method, one column for each number of points."""
    tables = section["tables"]
    yield "Two cubes in 3-D, n = m, blur .1; median seconds of value and gradient, and the relative error of the value"
    yield "(≤: bounded by the certified interval of the solve). A method stops where its next point would"
    yield "take too long."
    yield ""
    found = {name: [next((row for row in race["rows"] if row["method"] == name), None) for race in tables]
             for name in methods_of(tables)}  # fmt: skip
    rows = ([name, *map(growth_cell, own)] for name, own in found.items())
    yield from table(["method", *(f"{race['n']:,}" for race in tables)], rows)
    yield ""


def methods_of(tables: list[Results]) -> list[str]:
    return list(dict.fromkeys(row["method"] for race in tables for row in race["rows"]))


def growth_cell(row: Row | None) -> str:
    if row is None or not row["seconds"]:
        return "–"
    errors = row["errors"]
    bound = f"≤ {errors['value_at_most']:.0e}" if "value_at_most" in errors else error(errors["value"])
    state = ", not converged" if "converge" in row["note"] else ""
    return f"{median(row['seconds']):.3g} ({bound}{state})"


def memory_table(section: Results) -> Iterator[str]:
    yield "Two cubes in 3-D, n = m, blur .05, float32. The peak counts the points and all that the passes allocate,"
    yield "over the process before it made the points."
    yield ""
    head = ["n = m", "softmin, s", "gradient reduction, s", "peak, MB", "bytes per point", "dense matrix, MB", "note"]
    yield from table(head, map(memory_cells, section["rows"]))
    yield ""


def memory_cells(row: Row) -> list[str]:
    n, peak = row["n"], row.get("peak_bytes")
    figures = [number(row.get("softmin_s")), number(row.get("gradient_s"))]
    figures += ["–", "–"] if peak is None else [f"{peak / 1e6:.1f}", f"{peak / (2 * n):.0f}"]
    return [f"{n:,}", *figures, f"{4 * n * n / 1e6:,.0f}", row.get("note", "")]


RENDERERS: dict[str, Callable[[Results], Iterator[str]]] = {
    "T8": pass_tables,
    "kinds": kind_tables,
    "growth": growth_table,
    "memory": memory_table,
}


def draw(results: Results, folder: Path) -> list[str]:
    """The plots whose sections exist; none without matplotlib. Returns the names of the files."""
    drawers = {"growth": (draw_growth, (7, 4.5)), "accuracy": (draw_accuracy, (10, 4.2))}
    files = [
        drawn(
            folder / f"speed_{name}.svg",
            lambda figure, name=name, drawer=drawer: drawer(figure, results["sections"][name]),
            figsize=size,
        )
        for name, (drawer, size) in drawers.items()
        if name in results["sections"]
    ]
    return [file for file in files if file]


def draw_growth(figure: Any, section: Results) -> None:
    axes = figure.subplots()
    for name in methods_of(section["tables"]):
        points = [
            (race["n"], median(row["seconds"]))
            for race in section["tables"]
            for row in race["rows"]
            if row["method"] == name and row["seconds"]
        ]
        if points:
            axes.loglog(*zip(*points, strict=True), label=name, **style(name))
    axes.set(xlabel="points on each side", ylabel="seconds, value and gradient")
    finish(axes)
    if axes.has_data():
        axes.legend(frameon=False, fontsize=8)


def draw_accuracy(figure: Any, section: Results) -> None:
    both = figure.subplots(1, 2)
    for axes, kind in zip(both, ("value", "gradient"), strict=True):
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in section["tables"][0]["rows"]:
            if row["seconds"]:
                point = (median(row["seconds"]), row["errors"][kind])
                lines.setdefault(row["method"].split(",")[0], []).append(point)
        for name, points in lines.items():
            axes.loglog(*zip(*sorted(points), strict=True), label=name, **style(name))
        axes.set(xlabel="seconds, value and gradient", ylabel=f"relative error of the {kind}")
        finish(axes)
    # Lines cover both panels, so the legend stands above them.
    figure.legend(*both[0].get_legend_handles_labels(), loc="upper center", ncols=4, frameon=False)
