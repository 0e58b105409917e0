"""A method that takes part in a benchmark: a library with its settings, and the call that is measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from torch import Tensor

#: Entries of a dense float32 matrix above which a dense method is not tried: several are held at once.
DENSE_PAIRS = 1.2e8
#: Pairs above which a method that keeps matrices for each of its iterations is not tried.
TAPED_PAIRS = 2e6


@dataclass(frozen=True)
class Answer:
    """A value, 0-d or (B,), its gradient in x if the method has one, and what it says of its own convergence."""

    value: Tensor
    gradient: Tensor | None
    note: str = ""


@dataclass(frozen=True)
class Prepared:
    """``run`` is timed and ends when its result is there; ``read`` turns what it returned into what is judged."""

    run: Callable[[], Any]
    read: Callable[[Any], Any] = lambda result: result


@dataclass(frozen=True)
class Method:
    """A library with its settings.

    Attributes:
        name: in the tables.
        package: what must be installed. It is imported when it is first used, so that its absence is a note.
        prepare: of a problem, or of a problem and one of ``settings`` where there are several.
        settings: the tolerances or numbers of iterations that are tried, the least effort first.
        most_pairs: of points, beyond which the method is not tried: its matrices would be too large.
        details: of a problem: figures that are collected once, outside the timing.
    """

    name: str
    package: str
    prepare: Callable[..., Prepared]
    settings: tuple[Any, ...] = ()
    most_pairs: float = math.inf
    details: Callable[[Any], dict[str, Any]] | None = None

    def obstacle(self, pairs: float = 0) -> str:
        """Why it cannot run on so many pairs; empty if it can."""
        if find_spec(self.package) is None:
            return "not installed"
        return "not run: its matrices would be too large" if pairs > self.most_pairs else ""


def named_like(methods: list[Method], part: str) -> list[Method]:
    """Those whose name contains the part, in upper or lower case."""
    return [method for method in methods if part.lower() in method.name.lower()]
