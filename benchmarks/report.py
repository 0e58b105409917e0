"""The Markdown and the plots of the speed benchmark, made from its JSON and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measuring import quartiles

OURS = "sinkdiv"
Results = dict[str, Any]
COLOURS = {"sinkdiv": "black", "GeomLoss": "C0", "POT": "C1", "OTT-JAX": "C2", "KeOps": "C3"}
MARKERS = {"online": "s", "multiscale": "^", "tensorized": "v"}


def markdown(results: Results, plots: list[str]) -> str:
    """The whole report."""
    lines = ["# Speed beside other libraries", "", *introduction(), ""]
    for name, section in results["sections"].items():
        lines += [f"## {section['title']}", "", *RENDERERS.get(name, races)(section), *where(section), ""]
    lines += [f"![{Path(plot).stem}]({plot})\n" for plot in plots]
    return "\n".join(lines).rstrip() + "\n"


def introduction() -> list[str]:
    return [
        "Written by `python benchmarks/speed.py` from `speed.json`, which holds every single time. Times are wall "
        "times of value and gradient in x: the median [lower quartile, upper quartile] of interleaved turns, after a "
        "first use that is reported beside it (import and compilation, and what is compiled for the sizes at hand; "
        "KeOps keeps what it compiled between runs). "
        "Everybody gets the same float32 inputs. Errors are relative, the gradient's in L2, against a float64 solve "
        "whose certified interval is printed. **Tolerances are norms of different kinds**: sinkdiv's bounds the L1 "
        "error of both marginals together, POT's the L2 norm of one marginal's error, OTT's the L1 error of one "
        "marginal; GeomLoss runs a fixed schedule without a test. So compare times at similar errors. Ratios are to "
        "the first row of sinkdiv: above 1 is slower.",
    ]


def races(section: Results) -> Iterator[str]:
    for table in section["tables"]:
        yield f"### {table['title']}"
        yield ""
        yield exact_value(table)
        yield ""
        yield "| method | seconds | ratio | value error | gradient error | first use, s | note |"
        yield "|---|---|---|---|---|---|---|"
        base = our_median(table["rows"])
        for row in table["rows"]:
            errors = row.get("errors", {})
            cells = [
                row["method"], spread(row["seconds"]), ratio(row["seconds"], base), number(errors.get("value")),
                number(errors.get("gradient")), first_use(row), note(row),
            ]  # fmt: skip
            yield "| " + " | ".join(cells) + " |"
        yield ""


def exact_value(table: Results) -> str:
    if table.get("reference") is None:
        interval = table.get("interval")
        return f"Exact value in [{interval['lower']:.7g}, {interval['upper']:.7g}]." if interval else "No reference."
    exact = table["reference"]
    first = "" if exact["problems"] == 1 else f" of the first of {exact['problems']} problems"
    state = "" if exact["converged"] else f" The reference did NOT reach its tolerance of {exact['tol']:.0e}."
    return (
        f"Exact value{first} in [{exact['lower']:.10g}, {exact['upper']:.10g}], "
        f"relative width at most {exact['relative_width']:.1e}.{state}"
    )


def our_median(rows: list[Results]) -> float | None:
    ours = [row for row in rows if row["method"].startswith(OURS) and row["seconds"]]
    return quartiles(ours[0]["seconds"])[1] if ours else None


def spread(times: list[float]) -> str:
    if not times:
        return "–"
    low, middle, high = quartiles(times)
    once = " (once)" if len(times) == 1 else f" [{low:.3g}, {high:.3g}]"
    return f"{middle:.3g}{once}"


def ratio(times: list[float], base: float | None) -> str:
    return f"{quartiles(times)[1] / base:.3g}" if times and base else "–"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"


def first_use(row: Results) -> str:
    parts = [row[key] for key in ("first_use_s", "prepare_s") if row.get(key, 0) > 0.05]
    return " + ".join(f"{part:.1f}" for part in parts) or "–"


def note(row: Results) -> str:
    texts = [row["note"]] if row["note"] else []
    if "value_at_most" in row.get("errors", {}):
        texts.append(f"value error at most {row['errors']['value_at_most']:.1e}")
    if "details" in row:
        details = row["details"]
        texts.append("converged" if details["converged"] else "NOT converged")
        texts.append("passes " + ", ".join(f"{name} {count}" for name, count in details["passes"].items()))
    return "; ".join(texts).replace("|", "\\|")


def pass_tables(section: Results) -> Iterator[str]:
    yield (
        f"The floor comes from this machine's fastest float32 matrix product, {section['product_rate'] / 1e9:.0f} "
        f"Gflop/s: a pair is charged d fused multiply-adds for its distance and {section['slots']} for the polynomial "
        "of its exponential, everything else nothing. The error is the largest of the logsumexp, absolute, on 500 "
        "rows against float64."
    )
    for table in section["tables"]:
        base = our_median(table["rows"])
        yield from ["", f"### {table['title']}", "", f"Floor: {1e3 * table['floor_s']:.3g} ms.", ""]
        yield "| method | seconds | ratio | pairs per second | of the floor | error | note |"
        yield "|---|---|---|---|---|---|---|"
        for row in table["rows"]:
            rate = [f"{row['pairs_per_s']:.2g}", f"{100 * row['of_floor']:.0f} %"] if row["seconds"] else ["–", "–"]
            cells = [
                row["method"],
                spread(row["seconds"]),
                ratio(row["seconds"], base),
                *rate,
                number(row.get("error")),
            ]
            yield "| " + " | ".join([*cells, row["note"]]) + " |"
    yield ""


def kind_tables(section: Results) -> Iterator[str]:
    yield "`softmin` is a solver's pass, `plan_gradient` that of a first derivative in the points."
    yield "`weighted_marginals` and `weighted_gradient` belong to the derivative of the sharp value, the two tangents"
    yield "to second derivatives:"
    yield "with all points moving, or those of the rows alone."
    for table in section["tables"]:
        yield from ["", f"### {table['title']}", "", "| pass | seconds | pairs per second |", "|---|---|---|"]
        for row in table["rows"]:
            yield f"| {row['method']} | {spread(row['seconds'])} | {row['pairs_per_s']:.2g} |"
    yield ""


def growth_table(section: Results) -> Iterator[str]:
    """Median seconds, one row for each method, one column for each number of points."""
    tables = section["tables"]
    names = list(dict.fromkeys(row["method"] for table in tables for row in table["rows"]))
    yield "Two cubes in 3-D, n = m, blur .1; median seconds of value and gradient, and the relative error of the value"
    yield "(≤: bounded by the certified interval of the solve). A method stops where its next point would"
    yield "take too long."
    yield ""
    yield "| method | " + " | ".join(f"{table['n']:,}" for table in tables) + " |"
    yield "|---|" + "---|" * len(tables)
    for name in names:
        cells = [cell(next((row for row in table["rows"] if row["method"] == name), None)) for table in tables]
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""


def cell(row: Results | None) -> str:
    if row is None or not row["seconds"]:
        return "–"
    errors = row["errors"]
    error = f"≤ {errors['value_at_most']:.0e}" if "value_at_most" in errors else number(errors["value"])
    state = ", not converged" if "converge" in row["note"] else ""
    return f"{quartiles(row['seconds'])[1]:.3g} ({error}{state})"


def memory_table(section: Results) -> Iterator[str]:
    yield "Two cubes in 3-D, n = m, blur .05, float32. The peak counts the points and all that the passes allocate,"
    yield "over the process before it made the points."
    yield ""
    yield "| n = m | softmin, s | gradient reduction, s | peak, MB | bytes per point | dense matrix, MB | note |"
    yield "|---|---|---|---|---|---|---|"
    for row in section["rows"]:
        n = row["n"]
        if "peak_bytes" in row:
            peak = row["peak_bytes"]
            figures = [
                f"{row['softmin_s']:.3g}",
                f"{row['gradient_s']:.3g}" if "gradient_s" in row else "–",
                f"{peak / 1e6:.1f}",
                f"{peak / (2 * n):.0f}",
            ]
        else:
            figures = ["–"] * 4
        yield f"| {n:,} | " + " | ".join([*figures, f"{4 * n * n / 1e6:,.0f}", row.get("note", "")]) + " |"
    yield ""


def where(section: Results) -> list[str]:
    """The machine that a section was measured on."""
    machine = section["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    size = "" if section["size"] == "full" else f"**Reduced sizes ({section['size']}): no result.** "
    return [
        f"*{size}{machine['cpu']}, {machine['usable_cores']} cores, {machine['torch_threads']} threads, "
        f"{machine['cpu_capability']}; Python {machine['python']}, {versions}; commit {machine['commit']}; load before "
        f"{machine['load']}; {machine['date']}.*"
    ]


RENDERERS: dict[str, Callable[[Results], Iterator[str]]] = {
    "T8": pass_tables,
    "kinds": kind_tables,
    "growth": growth_table,
    "memory": memory_table,
}


def draw(results: Results, folder: Path) -> list[str]:
    """The plots whose sections exist; none without matplotlib. Returns the names of the files."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = OURS
    drawers = {"growth": draw_growth, "accuracy": draw_accuracy}
    files = []
    for name, drawer in drawers.items():
        if name in results["sections"]:
            figure = drawer(results["sections"][name])
            files.append(f"speed_{name}.svg")
            figure.savefig(folder / files[-1], metadata={"Date": None}, bbox_inches="tight")
    return files


def draw_growth(section: Results) -> Any:
    from matplotlib.figure import Figure

    axes = (figure := Figure(figsize=(7, 4.5))).subplots()
    for name in dict.fromkeys(row["method"] for table in section["tables"] for row in table["rows"]):
        points = [
            (table["n"], quartiles(row["seconds"])[1])
            for table in section["tables"]
            for row in table["rows"]
            if row["method"] == name and row["seconds"]
        ]
        if points:
            axes.loglog(*zip(*points, strict=True), label=name, **style(name))
    axes.set(xlabel="points on each side", ylabel="seconds, value and gradient")
    finish(axes)
    if axes.has_data():
        axes.legend(frameon=False, fontsize=8)
    return figure


def draw_accuracy(section: Results) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2))
    both = figure.subplots(1, 2)
    for axes, kind in zip(both, ("value", "gradient"), strict=True):
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in section["tables"][0]["rows"]:
            if row["seconds"]:
                point = (quartiles(row["seconds"])[1], row["errors"][kind])
                lines.setdefault(row["method"].split(",")[0], []).append(point)
        for name, points in lines.items():
            axes.loglog(*zip(*sorted(points), strict=True), label=name, **style(name))
        axes.set(xlabel="seconds, value and gradient", ylabel=f"relative error of the {kind}")
        finish(axes)
    # Lines cover both panels, so the legend stands above them.
    figure.legend(*both[0].get_legend_handles_labels(), loc="upper center", ncols=4, frameon=False)
    return figure


def style(name: str) -> dict[str, Any]:
    colour = next((colour for library, colour in COLOURS.items() if name.startswith(library)), "grey")
    marker = next((marker for word, marker in MARKERS.items() if word in name), "o")
    width = 2.2 if name.startswith(OURS) else 1.2
    return {"color": colour, "marker": marker, "linewidth": width, "markersize": 5}


def finish(axes: Any) -> None:
    axes.grid(True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
