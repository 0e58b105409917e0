"""The Markdown of the comparison of two trees, made from its JSON and nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks.frame.book import Results
from benchmarks.frame.rows import Row
from benchmarks.frame.tables import milliseconds, page, table, where
from benchmarks.regression.values import LEAST, ROUNDING

INTRODUCTION = f"""\
Written by `python -m benchmarks.regression BEFORE/src AFTER/src` from `regression.json`.

**Numbers.** Every problem of `problems.py` is solved by both commits, on one thread. A difference is relative to the
largest number of a quantity (and to at least {LEAST["float64"]:g} in float64 and {LEAST["float32"]:g} in float32); up
to {ROUNDING["float64"]:g} and {ROUNDING["float32"]:g} it is rounding. Passes, statuses and errors must be equal.

**Times.** Value and gradient of the speed benchmark's workloads, in the processor's seconds on one thread. Both commits
take turns of a twentieth of a second on the same core. Where a process lies in memory changes its times by some per
cent, so both are started anew several times: the ratio is the mean over starts of the median over turns, ± its standard
error. "fastest" is the ratio of the fastest turns of all."""


def report(results: Results, _: Path) -> str:
    sections = results["sections"]
    parts = [of_values(sections["values"])] if "values" in sections else []
    parts += [of_times(sections[name]) for name in ("times", "noise") if name in sections]
    return page("One commit beside another", INTRODUCTION, parts)


def of_values(section: Results) -> Iterator[str]:
    yield from head(section)
    yield f"{section['quantities']} quantities of {section['problems']} problems: {section['same']} are the same to the"
    yield f"last bit, {len(section['beyond'])} differ by more than rounding. Those of which some differ:"
    yield ""
    columns = ["quantity", "problems", "differ", "largest difference", "where"]
    yield from table(columns, (difference(row) for row in section["rows"] if row["differ"]))
    if section["beyond"]:
        yield from ["", *map(beyond_rounding, section["beyond"])]
    yield from ["", where(section)]


def beyond_rounding(one: Row) -> str:
    return f"- {one['problem']}, {one['quantity']}: {one['complaint']} ({one['relative']:.1e})"


def difference(row: Row) -> list[str]:
    return [row["quantity"], str(row["problems"]), str(row["differ"]), f"{row['largest']:.1e}", row["where"]]


def of_times(section: Results) -> Iterator[str]:
    yield from head(section)
    columns = ["workload", "before, ms", "after, ms", "after / before", "starts, least to most", "fastest", "turns"]
    yield from table(columns, map(ratio, section["rows"]))
    yield from ["", where(section)]


def ratio(row: Row) -> list[str]:
    starts = row["starts"]
    return [
        row["workload"], milliseconds(row["before_s"]), milliseconds(row["after_s"]), with_error(starts),
        f"{min(starts):.3f} to {max(starts):.3f}", f"{row['fastest']:.3f}", str(row["turns"]),
    ]  # fmt: skip


def with_error(starts: list[float]) -> str:
    """The mean, and its standard error where there are several."""
    error = f" ± {statistics.stdev(starts) / len(starts) ** 0.5:.3f}" if len(starts) > 1 else ""
    return f"{statistics.mean(starts):.3f}{error}"


def head(section: Results) -> Iterator[str]:
    before, after = section["commits"]
    yield from [f"## {section['title']}", "", f"Before: commit {before}; after: commit {after}.", ""]
