"""The Markdown of the GPU benchmark, made from its JSON and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

from benchmarks.frame.book import Results
from benchmarks.frame.rows import Row, joined
from benchmarks.frame.tables import error, megabytes, milliseconds, number, page, percent, table

INTRODUCTION = """\
Written by `python -m benchmarks.gpu` from `gpu.json`. Times of kernels are medians of single calls by the device's
own events, after a first one; before each the cache is overwritten, so that inputs come from memory once. **In a row**:
calls launched one after the other, by the clock: what a solver sees of short ones, where launching is what takes time.
**Of the floor**: the seconds in which the busiest unit could do what a pair is charged (below), over the seconds
measured. Times of solves are those of a value and its gradient in x, by events.

A pair is charged an exponential; in up to 8 dimensions 2d operations in float32 for its distance, and beyond the matrix
product, of which three of float16 halves ("high") or one in TF32 is taken; a few more operations for its sums; and for
a gradient the product with the coordinates (three in TF32, or one). Between points and themselves, half of it."""

METHOD = """\
Everybody gets the same float32 inputs. The marginal error, Σ|P1 − a| + Σ|Pᵀ1 − b| of the problem between x and y, is
measured from each method's potentials in float64 by plain PyTorch (beyond 2,048 points on as many rows and columns). A
method's effort, its iterations or the ratio of its schedule, grows until that error is at most 1e-3, or until there is
no time for more. The errors of value and gradient are relative to a reference whose own marginal error is in its row.
**Ratios are comparable only between rows whose marginal errors are.**"""


def report(results: Results) -> str:
    sections = [of_section(name, section) for name, section in results["sections"].items()]
    return page("On a GPU", INTRODUCTION, sections)


def of_section(name: str, section: Results) -> Iterator[str]:
    yield from [f"## {section['title']}", "", *where(section), ""]
    for title, rows in groupby(section["rows"], key=lambda row: row["table"]):
        yield from [f"### {title}", "", *RENDERERS[name](list(rows)), ""]
    if section.get("note"):
        yield section["note"]


def where(section: Results) -> Iterator[str]:
    """What the section was measured on, and whether it came to its end."""
    facts = section["facts"]
    if section["size"] != "full":
        yield "**Sizes that show that it works: no result.**"
        yield ""
    if not section["complete"]:
        yield f"**Not complete: ended after {section.get('spent_s', 0):.0f} of {section['budget_s']:.0f} s.**"
        yield ""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items() if number)
    driver = f", driver {facts['driver']}, CUDA {facts['cuda']}" if facts["driver"] else ""
    yield f"*{facts['device']}{driver}; Python {facts['python']}, {versions};"
    yield f"commit {facts['commit']}; {facts['date']}.*"
    if rates := facts.get("rates"):
        products = [
            f"{rates[key] / 1e12:.0f} Tflop/s of {name} products"
            for key, name in (("half_products", "float16"), ("tf32_products", "TF32"))
            if rates[key]
        ]
        yield ""
        yield f"Taken for the floor: {rates['multiprocessors']} multiprocessors at {rates['clock'] / 1e9:.2f} GHz:"
        yield f"{rates['exponentials'] / 1e12:.2f}e12 exponentials and {rates['float32'] / 1e12:.1f}e12 float32"
        yield f"operations a second{', ' if products else ''}{', '.join(products)}."
    if section.get("introduction"):
        yield ""
        yield section["introduction"]


def error_table(rows: list[Row]) -> Iterator[str]:
    kernels = list(dict.fromkeys(name for row in rows for name in row.get("errors", {})))

    def cells(row: Row) -> list[str]:
        head = [str(row["d"]), row["cost"], f"{row['blur']:g}"]
        if "errors" not in row:
            return [*head, row["note"], *([""] * len(kernels))]
        return [*head, error(row["unit"]), *(error(row["errors"].get(name)) for name in kernels)]

    ordered = sorted(rows, key=lambda row: (row["d"], row["cost"], -row["blur"]))
    return table(["d", "cost", "blur", "unit", *kernels], map(cells, ordered))


def time_table(rows: list[Row]) -> Iterator[str]:
    head = ["kernel", "ms", "in a row, ms", "pairs per second", "of the floor", "peak, MB", "note"]
    return table(
        head,
        (
            [row["method"], milliseconds(row.get("seconds")), milliseconds(row.get("in_a_row")),
             error(row.get("pairs_per_s")), percent(row.get("of_floor")), megabytes(row.get("peak_bytes")),
             row.get("note", "")]
            for row in rows
        ),
    )  # fmt: skip


def solve_table(rows: list[Row]) -> Iterator[str]:
    base = next((row["seconds"] for row in rows if row["method"].startswith("sinkdiv") and "seconds" in row), None)

    def cells(row: Row) -> list[str]:
        found = row.get("errors", {})
        ratio = f"{row['seconds'] / base:.2f}" if base and "seconds" in row else "–"
        return [
            row["method"], row.get("reference") or f"{row.get('effort', '–')}", error(row.get("marginal_error")),
            milliseconds(row.get("seconds")), ratio, error(found.get("value")), error(found.get("gradient")),
            number(row.get("first_s")), megabytes(row.get("peak_bytes")), joined(*solve_notes(row)),
        ]  # fmt: skip

    errors = ["value error", "gradient error"]
    head = ["method", "effort", "marginal error", "ms", "ratio", *errors, "first, s", "MB", "note"]
    return table(head, map(cells, rows))


def solve_notes(row: Row) -> Iterator[str]:
    yield row.get("note", "")
    if said := row.get("certificate"):
        yield "converged" if said["converged"] else "NOT converged"
        yield "passes " + ", ".join(f"{name} {count}" for name, count in said["passes"].items())
        if "lower" in said:
            holds = "holds the reference" if said["holds_reference"] else "does NOT hold the reference"
            yield f"interval [{said['lower']:.6g}, {said['upper']:.6g}] {holds}"


def wait_table(rows: list[Row]) -> Iterator[str]:
    cells = (
        [row["method"], f"{row.get('waits', '–')}", ", ".join(row.get("places", [])), row.get("note", "")]
        for row in rows
    )
    return table(["method", "waits", "where", "note"], cells)


def first_table(rows: list[Row]) -> Iterator[str]:
    cells = (
        [row["method"], number(row.get("first_s")), milliseconds(row.get("next_s")), row.get("note", "")]
        for row in rows
    )
    return table(["kernel", "first call, s", "next, ms", "note"], cells)


def tile_table(rows: list[Row]) -> Iterator[str]:
    """The five fastest of each kernel, and how much slower the slowest is."""
    ran = sorted((row for row in rows if "seconds" in row), key=lambda row: row["seconds"])
    shown = ran[:5] + ran[5:][-1:]
    cells = ([row["method"], milliseconds(row["seconds"]), error(row["pairs_per_s"])] for row in shown)
    yield from table(["tile", "ms", "pairs per second"], cells)
    yield ""
    yield f"{len(ran)} of {len(rows)} ran; the slowest stands last."


RENDERERS: dict[str, Callable[[list[Row]], Iterator[str]]] = {
    "errors": error_table, "solves": solve_table, "times": time_table, "steps": time_table, "waits": wait_table,
    "first": first_table, "tiles": tile_table,
}  # fmt: skip
