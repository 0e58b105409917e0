"""The Markdown of the benchmark of cost matrices, made from its JSON and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.frame.book import Results
from benchmarks.frame.rows import Row
from benchmarks.frame.tables import median, milliseconds, page, table, where
from benchmarks.matrices.methods import TOL

INTRODUCTION = """\
Written by `python -m benchmarks.matrices` from `matrices.json`. Median milliseconds until an L1 marginal error of 1e-6
(both sides added up), float64; ×: not reached, with the error that was. Columns: cost, ε.
"""


def report(results: Results, _: Path) -> str:
    sections = [[f"## {section['title']}", "", *of_section(section)] for section in results["sections"].values()]
    return page("Cost matrices beside other libraries", INTRODUCTION, sections)


def of_section(section: Results) -> Iterator[str]:
    rows = section["rows"]
    is_gradient = any("gradient_error" in row for row in rows)
    yield from problem_table(rows, with_error if is_gradient else cell)
    yield ""
    if not is_gradient:
        worst = max(row.get("value_error", 0.0) for row in rows if row["method"].startswith("sinkdiv"))
        yield from [f"Largest relative error of our <P, C>: {worst:.1e}.", ""]
    yield where(section)


def problem_table(rows: list[Row], shown: Callable[[Row], str]) -> Iterator[str]:
    """A row for each method, a column for each problem."""
    problems = list(dict.fromkeys((row["problem"], row["eps"]) for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cells = {(row["method"], row["problem"], row["eps"]): shown(row) for row in rows}
    head = ["method", *(f"{name}, {eps:g}" for name, eps in problems)]
    yield from table(head, ([name, *(cells.get((name, *one), "") for one in problems)] for name in methods))


def cell(row: Row) -> str:
    """Median milliseconds; × if the marginal error was not reached, with what was."""
    if "seconds" not in row:
        return row.get("note", "–")
    error = row.get("marginal_error", 0.0)
    time = milliseconds(median(row["seconds"]))
    return time if error <= TOL * (1 + 1e-6) else f"× ({time}; {error:.0e})"


def with_error(row: Row) -> str:
    return f"{cell(row)} ({row['gradient_error']:.0e})" if "gradient_error" in row else cell(row)
