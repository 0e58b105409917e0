"""Results that are written as they are found: a run that crashes or is stopped loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.frame.book import load, save
from benchmarks.frame.clock import say
from benchmarks.frame.rows import Row
from benchmarks.gpu.device import Device


@dataclass(frozen=True)
class Sizes:
    """Numbers of points and dimensions, for all sections."""

    #: Rows and columns of the problems in which errors are measured (multiples of 16, as the points below, so that
    #: kernels compiled for one serve the others), and blurs in units of the clouds' extent.
    rows: int
    columns: int
    dimensions: tuple[int, ...]
    blurs: tuple[float, ...]
    #: Points on each side for the times of single kernels; of the last, softmins only.
    points: tuple[int, ...]
    most_points: int
    #: Whole solves: (workload, dimension, points), the most telling first.
    solves: tuple[tuple[str, int, int], ...]
    #: Up to this many points a reference is solved in float64 to 1e-8.
    exact_points: int
    #: Training steps: (batch, points, dimension, blur).
    steps: tuple[tuple[int, int, int, float], ...]
    #: Points of the timed tiles: a full round of programs of 128 rows for an H100, so that no column is cut into parts.
    tuned_points: int
    #: Whether all alternatives are tried, or two that show that it works.
    all_tiles: bool


FULL = Sizes(
    2000, 1520, (3, 64, 512), (1.0, 0.3, 0.1, 0.03), (100_000, 10_000, 1_000), 1_000_000,
    (
        ("cubes", 3, 100_000), ("gaussians", 64, 100_000), ("cubes", 3, 10_000), ("gaussians", 64, 10_000),
        ("gaussians", 512, 10_000), ("cubes", 3, 1_000), ("gaussians", 64, 1_000), ("gaussians", 512, 1_000),
        ("gaussians", 512, 100_000), ("cubes", 3, 1_000_000),
    ),
    20_000, ((1, 128, 10, 0.3), (1, 256, 784, 1.0), (64, 256, 3, 0.05)), 67_584, True,
)  # fmt: skip
QUICK = Sizes(
    40, 33, (3, 16), (0.1,), (48,), 64, (("cubes", 3, 60), ("gaussians", 16, 40)), 50,
    ((1, 16, 10, 0.3), (2, 16, 3, 0.2)), 40, False,
)  # fmt: skip


@dataclass(frozen=True)
class Context:
    """What a section is given."""

    device: Device
    sizes: Sizes
    jobs: int
    ends: float = field(repr=False)

    def left(self) -> float:
        """Seconds until the section's time is over."""
        return self.ends - time.monotonic()


Section = Callable[[Context], Iterator[Row]]


def fill(file: Path, name: str, head: Row, section: Section, context: Context) -> None:
    """Run a section until its time is over, and write each of its rows when it is there."""
    begin = time.monotonic()
    found: Row = head | {"rows": [], "complete": False}
    results = load(file)
    results["sections"][name] = found
    save(results, file)
    for row in section(context):
        found["rows"].append(row)
        found["spent_s"] = round(time.monotonic() - begin, 1)
        say(f"  {name}: {summary(row)}")
        save(results, file)
        if context.left() < 0:
            return
    found["complete"] = True
    save(results, file)


def summary(row: Row) -> str:
    shown = {name: value for name, value in row.items() if not isinstance(value, (dict, list))}
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
    )
