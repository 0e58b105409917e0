"""How a problem is solved, as a user says it: one frozen object for each algorithm, with the options that it has."""

from __future__ import annotations

import dataclasses
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

from sinkdiv.declarations import check_fields, documents_fields, option
from sinkdiv.kernels import PRECISIONS
from sinkdiv.solvers.problem import Check, Limits, Problem, Start

Callback = Callable[[Check], object]


class Earlier(ABC):
    """A solved problem that a later one may start from: a `Transport`, or a `Divergence`."""

    @abstractmethod
    def _start_for(self, problem: Problem) -> Start | None:
        """Where the later problem starts; None if the two do not fit."""


def _passes(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 2:
        raise ValueError(f"{name} must be an integer of at least 2, not {value!r}")
    return int(value)


def _warm(name: str, value: Any) -> Any:
    several = value if isinstance(value, (list, tuple)) and value else [value]
    if not isinstance(value, bool) and not all(isinstance(one, Earlier) for one in several):
        raise ValueError(f"{name} must be True, False, a Transport, a Divergence or a list of these, not {value!r}")
    return value


def _precision(name: str, value: Any) -> str:
    if value not in PRECISIONS:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, PRECISIONS))}, not {value!r}")
    return str(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return value


def _callback(name: str, value: Any) -> Callback | None:
    if value is not None and not callable(value):
        raise ValueError(f"{name} must be callable, not {type(value).__name__}")
    found: Callback | None = value
    return found


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}, how many to unroll, must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return value


@dataclass(frozen=True, kw_only=True, repr=False)
class Solver:
    """How a problem is solved. See `Auto`, `Sinkhorn`, `Newton`, `LBFGS` and `Unrolled`."""

    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        fields = [(one.name, getattr(self, one.name), one.default) for one in dataclasses.fields(self)]
        given = ", ".join(f"{name}={value!r}" for name, value, default in fields if value != default)
        return f"{type(self).__name__}({given})"

    @property
    def is_plain(self) -> bool:
        """Whether it holds plain values only, which may be remembered without keeping anything alive."""
        return True


@dataclass(frozen=True, kw_only=True, repr=False)
class IterativeSolver(Solver):
    """A solver that iterates until the marginal error is below a tolerance."""

    holds_costs: ClassVar[bool] = False
    """Whether the cost matrix is held in memory, also between points."""

    max_passes: int = option(
        2000, "bound on the passes over all pairs of each problem, those of the annealing included.", _passes
    )
    warm_start: bool | Earlier | Sequence[Earlier] = option(
        False,
        "an earlier `Transport` or `Divergence` (for lists of clouds: a list of them) that the solve between the two "
        "samples starts from. A module takes True: it then starts each solve where its last call ended; copies and "
        "checkpoints of the module begin anew. It is worth it where a pass is long and samples change little, such as "
        "points that flow: the softmin carries the potentials over to other points, in any number, so mini-batches "
        "may be fresh ones. A cost matrix takes them over if it has the same shape. Where the earlier problem "
        "does not fit, the solve begins anew. The result meets the same tolerance.",
        _warm,
    )
    precision: str = option(
        "high",
        'how GPUs multiply float32 coordinates of more than 8 dimensions under |x−y|²: "high", about as precisely as '
        'float32, or "tf32", with two thirds of that arithmetic, which solves the problem of points that have moved by '
        "a relative 2⁻¹². It changes nothing on CPUs, for other costs and for float64.",
        _precision,
    )
    progress: bool = option(False, "draw the passes and the marginal error on stderr.", _flag)
    callback: Callback | None = option(
        None,
        "a function that is given a `Check` at each convergence test; if it returns True, the solve ends there. A CPU "
        "tests after each step, an accelerator, where a test makes the host wait, after several steps if it takes "
        "many.",
        _callback,
    )

    @property
    def is_plain(self) -> bool:
        return self.callback is None and isinstance(self.warm_start, bool)

    def limits(self, tol: float | None) -> Limits:
        """When a solve with this solver ends; without a ``tol`` after ``max_passes``."""
        watch = _Watch(self.progress, self.callback) if self.progress or self.callback is not None else None
        return Limits(-math.inf if tol is None else tol, self.max_passes, watch)


@documents_fields
@dataclass(frozen=True, kw_only=True, repr=False)
class Auto(IterativeSolver):
    """The best algorithm for each problem.

    Between points that is the accelerated Sinkhorn iteration, as with `Sinkhorn`. For a cost matrix it is the same,
    and Newton's method where a forecast from the first passes says that this is cheaper.

    Args:
        {options}

    Raises:
        ValueError: naming the option that is wrong.

    Example:
        >>> x, y = torch.rand(100, 2), torch.rand(80, 2)
        >>> loss = sinkdiv.sinkhorn_divergence(x, y, blur=0.1, solver=sinkdiv.Auto(max_passes=500))
    """

    name = "auto"


@documents_fields
@dataclass(frozen=True, kw_only=True, repr=False)
class Sinkhorn(IterativeSolver):
    """Sinkhorn's iteration, annealed and accelerated by extrapolation; never Newton's method.

    Between points a pass streams over all pairs and stores none. For a cost matrix it is a product with a stored
    kernel.

    Args:
        {options}

    Raises:
        ValueError: naming the option that is wrong.

    Example:
        >>> C = torch.rand(50, 60)
        >>> sinkdiv.solve_matrix(C, eps=0.05, solver=sinkdiv.Sinkhorn()).converged
        True
    """

    name = "sinkhorn"


@documents_fields
@dataclass(frozen=True, kw_only=True, repr=False)
class Newton(IterativeSolver):
    """Newton's method on the semi-dual (Q23 §3), from where Sinkhorn's iteration has begun.

    For small ε and tight tolerances, where Sinkhorn's iteration needs many passes. The cost matrix is held in memory
    while the solve lasts, also between points; gradients in the points then stream as always. A problem of a sample
    with itself is solved by the symmetric iteration, which needs a few passes only.

    Args:
        {options}

    Raises:
        ValueError: naming the option that is wrong.

    Example:
        >>> C = torch.rand(50, 60, dtype=torch.float64)
        >>> sinkdiv.solve_matrix(C, eps=0.01, tol=1e-9, solver=sinkdiv.Newton()).converged
        True
    """

    name = "newton"
    holds_costs = True


@documents_fields
@dataclass(frozen=True, kw_only=True, repr=False)
class LBFGS(IterativeSolver):
    """Limited-memory BFGS on the semi-dual (Q23 §3), from where Sinkhorn's iteration has begun.

    The cost matrix is held in memory while the solve lasts, as with `Newton`; a step costs one or two passes.

    Args:
        {options}

    Raises:
        ValueError: naming the option that is wrong.

    Example:
        >>> C = torch.rand(50, 60, dtype=torch.float64)
        >>> sinkdiv.solve_matrix(C, eps=0.05, tol=1e-6, solver=sinkdiv.LBFGS()).converged
        True
    """

    name = "lbfgs"
    holds_costs = True


#: The solvers that iterate to a tolerance, by name.
SOLVERS: dict[str, type[IterativeSolver]] = {one.name: one for one in (Auto, Sinkhorn, Newton, LBFGS)}


@documents_fields
@dataclass(frozen=True, kw_only=True, repr=False)
class Unrolled(Solver):
    """A fixed number of plain Sinkhorn iterations, differentiated as a program (G18, P19); for losses only.

    The value is the one that the iterations have reached, whatever it is: ``tol`` plays no part.

    Args:
        {options}

    Raises:
        ValueError: naming the option that is wrong.

    Example:
        >>> x, y = torch.rand(20, 2), torch.rand(20, 2)
        >>> loss = sinkdiv.transport_cost(x, y, eps=0.1, value="sharp", solver=sinkdiv.Unrolled(iterations=10))
    """

    name = "unrolled"

    iterations: int = option(50, "how many iterations are unrolled (G18 takes 10 to 100, P19 50).", _count)


@dataclass(frozen=True)
class _Watch:
    """Draws each convergence test and hands it on; True ends the solve."""

    progress: bool
    callback: Callback | None

    def __call__(self, check: Check) -> bool:
        if self.progress:
            state = "annealing" if math.isnan(check.marginal_error) else f"marginal error {check.marginal_error:.2e}"
            end = "\n" if check.unfinished == 0 else ""
            sys.stderr.write(f"\r{check.passes:5d} passes, eps {check.eps:.3g}, {state:<28}{end}")
            sys.stderr.flush()
        return self.callback is not None and self.callback(check) is True
