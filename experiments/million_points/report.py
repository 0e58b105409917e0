"""The table of the large divergences, made from the records and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from experiments.frame.runs import Record
from experiments.frame.tables import conditions, load, table, write_page

#: Seconds of a pass over 10¹² pairs on an H100 whose special function units do nothing but exponentials, and the parts
#: of that which kernels may reach: what is expected of a GPU, as long as nobody has measured it.
FLOOR_S, REACHED = 0.26, (0.2, 0.6)


def write_report(found: list[Record], folder: Path) -> None:
    write_page(folder / "table.md", "A million points", lines(found))


def lines(found: list[Record]) -> Iterator[str]:
    blur, tol = found[0]["blur"], found[0]["tol"]
    yield f"x uniform on [0, 1]³, y on [.3, 1.1]³, equally many, float32, |x−y|², blur {blur:g}, marginal errors at"
    yield f"most {tol:g}. Seconds are of value and gradient together, and of the interval (in float64) apart. The"
    yield "gradient's error is that of its sum over x, which is twice the difference of the means. Memory is what the"
    yield "process needed beyond the points, on a GPU what was allocated there. Passes: between clouds, within each."
    yield ""
    head = [
        "n = m",
        "on",
        "seconds",
        "passes",
        "marginal error",
        "value",
        "interval",
        "its s",
        "gradient's error",
        "MB",
    ]
    yield from table(head, map(cells, sorted(found, key=lambda record: (record["device"], record["points"]))))
    yield ""
    yield from expectations(found)
    yield f"Load before: {load(found)}."
    yield from conditions(found)


def cells(record: Record) -> list[str]:
    state = "" if record["converged"] else " **not converged**"
    return [
        f"{record['points']:,}", record["gpu"] or record["device"], f"{record['solve_s']:.3g}{state}",
        ", ".join(str(count) for count in record["passes"].values()), f"{max(record['marginal_errors'].values()):.1e}",
        f"{record['value']:.7g}", "[{:.6g}, {:.6g}]".format(*record["bounds"]) if "bounds" in record else "–",
        f"{record['bounds_s']:.3g}" if "bounds_s" in record else "–", f"{record['gradient_sum_error']:.1e}",
        f"{record['peak_bytes'] / 1e6:.0f}",
    ]  # fmt: skip


def expectations(found: list[Record]) -> Iterator[str]:
    """What a million points should take, where that was not measured: passes hardly depend on how many there are."""
    largest = max(found, key=lambda record: record["points"])
    passes = sum(largest["passes"].values()) + 2  # and the two of the gradient
    for device, title in (("cpu", "a CPU like this"), ("cuda", "an H100")):
        measured = [record for record in found if record["device"] == device]
        if any(record["points"] >= 1_000_000 for record in measured):
            continue
        if measured:
            own = max(measured, key=lambda record: record["points"])
            seconds = own["solve_s"] * (1e6 / own["points"]) ** 2
            yield f"Expected of a million points on {title}, not measured: {seconds / 60:.0f} minutes, in proportion to"
            yield f"the pairs from {own['points']:,} points."
        else:
            fast, slow = (passes * FLOOR_S / part for part in reversed(REACHED))
            yield f"Expected of a million points on {title}, not measured: {passes} passes of {FLOOR_S} s each at best,"
            yield f"of which kernels may reach {REACHED[0]:.0%} to {REACHED[1]:.0%}: {fast:.0f} to {slow:.0f} seconds."
        yield ""
