"""The sections of the comparison of two trees. Each returns plain data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.frame.book import Results, Section
from benchmarks.frame.machine import commit
from benchmarks.regression.times import raced
from benchmarks.regression.values import compared, written


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    problems: str
    """Part of the names of problems."""
    workloads: tuple[str, ...]
    """How the names of workloads begin."""
    starts: int
    """How often the processes are started: where they lie in memory changes times by some per cent."""
    seconds: float
    """For each workload and start."""

    def changed(self, **sizes: Any) -> Sizes:
        """With those of the sizes that are not None."""
        return dataclasses.replace(self, **{name: size for name, size in sizes.items() if size is not None})


FULL = Sizes(problems="", workloads=("",), starts=12, seconds=3.0)
QUICK = Sizes(problems="zero weights", workloads=("T5: 128",), starts=1, seconds=0.2)


@dataclass(frozen=True)
class Context:
    """What all sections share."""

    out: Path
    trees: tuple[Path, Path]
    sizes: Sizes

    @property
    def commits(self) -> list[str | None]:
        return [commit(tree) for tree in self.trees]


def values(context: Context) -> Results:
    before, after = (written(tree, context.sizes.problems) for tree in context.trees)
    return {"commits": context.commits} | compared(before, after)


def times(context: Context) -> Results:
    sizes = context.sizes
    rows = raced(context.trees, tuple(sizes.workloads), sizes.starts, sizes.seconds)
    return {"commits": context.commits, "rows": rows}


def noise(context: Context) -> Results:
    before, _ = context.trees
    return times(dataclasses.replace(context, trees=(before, before)))


SECTIONS: dict[str, Section] = {
    "values": ("Numbers", values),
    "times": ("Times", times),
    "noise": ("Noise: the first commit against itself", noise),
}
