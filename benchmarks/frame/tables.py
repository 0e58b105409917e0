"""Tables in Markdown, and how figures are written in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap
from typing import Any

from benchmarks.frame.clock import quartiles
from benchmarks.frame.rows import Row

OURS = "sinkdiv"
#: Columns of a line of prose.
WIDTH = 100


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield line(head)
    yield "|" + "---|" * len(head)
    for row in rows:
        yield line(row)


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page(title: str, introduction: str, sections: Iterable[Iterable[str]]) -> str:
    """A whole report; each of the sections is some lines."""
    lines = [f"# {title}", "", *([*introduction.splitlines(), ""] if introduction else [])]
    for section in sections:
        lines += [*section, ""]
    return "\n".join(wrapped(lines)).rstrip() + "\n"


def wrapped(lines: Iterable[str]) -> Iterator[str]:
    """The lines with prose and items of lists filled to `WIDTH` columns; tables, headings and pictures stay."""
    paragraph: list[str] = []
    for text in [*lines, ""]:
        is_prose = bool(text) and not text.startswith(("|", "#", "!"))
        if paragraph and (not is_prose or text.startswith("- ")):
            indent = "  " if paragraph[0].startswith("- ") else ""
            filled = " ".join(paragraph)
            yield from wrap(filled, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
            paragraph = []
        if is_prose:
            paragraph.append(text.strip())
        else:
            yield text


def where(section: Row) -> str:
    """The machine that a section was measured on."""
    place = section["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in place["versions"].items() if version)
    size = "" if section["size"] == "full" else f"**Reduced sizes ({section['size']}): no result.** "
    return (
        f"*{size}{place['cpu']}, {place['usable_cores']} cores, {place['torch_threads']} threads, "
        f"{place['cpu_capability']}; Python {place['python']}, {versions}; commit {place['commit']}; load before "
        f"{place['load']}; {place['date']}.*"
    )


def median(times: list[float]) -> float:
    return quartiles(times)[1]


def our_median(rows: list[Row]) -> float | None:
    """The median time of our first row that has times, to which ratios are taken."""
    ours = [row for row in rows if row["method"].startswith(OURS) and row["seconds"]]
    return median(ours[0]["seconds"]) if ours else None


def timing(times: list[float]) -> str:
    """Median [lower quartile, upper quartile], in seconds."""
    if not times:
        return "–"
    low, middle, high = quartiles(times)
    once = " (once)" if len(times) == 1 else f" [{low:.3g}, {high:.3g}]"
    return f"{middle:.3g}{once}"


def ratio(times: list[float], base: float | None) -> str:
    return f"{median(times) / base:.3g}" if times and base else "–"


def error(value: float | None) -> str:
    return _written(value, ".1e")


def number(value: float | None) -> str:
    return _written(value, ".3g")


def milliseconds(seconds: float | None) -> str:
    return _written(seconds, ".3g", 1e3)


def percent(value: float | None) -> str:
    return _written(value, ".0f", 100, " %")


def megabytes(count: int | None) -> str:
    return _written(count, ",.1f", 1e-6)


def _written(value: Any, form: str, factor: float = 1, unit: str = "") -> str:
    return "–" if value is None else f"{factor * value:{form}}{unit}"
