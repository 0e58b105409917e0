"""The options that every solve shares, checked once and turned into cost units."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

from sinkdiv.ground import GroundCost
from sinkdiv.kernels import PRECISIONS
from sinkdiv.solvers import Check, Limits

Length = float | tuple[float, float]
Callback = Callable[[Check], object]


class ConvergenceWarning(UserWarning):
    """A solve ended before its marginal error fell below the tolerance."""


@dataclass(frozen=True)
class Settings:
    """Checked options: the ground cost, ε, the strengths ρ (infinite if balanced), the limits of the solve."""

    ground: GroundCost
    eps: float
    rho: tuple[float, float]
    limits: Limits
    precision: str = "high"

    @property
    def balanced(self) -> bool:
        return math.isinf(self.rho[0])

    @classmethod
    def check(
        cls,
        ground: GroundCost,
        *,
        blur: float | None,
        eps: float | None,
        reach: Length | None,
        rho: Length | None,
        tol: float | None,
        max_passes: int,
        progress: bool,
        callback: Callback | None,
        precision: str,
    ) -> Settings:
        """Check the options; a named cost turns blur and reach into cost units, a matrix has no lengths.

        Without a ``tol`` nothing is tested.

        Raises:
            ValueError: naming the option.
        """
        if tol is not None:
            _check_positive("tol", tol)
        elif progress or callback is not None:
            raise ValueError("progress and callback see convergence tests, but tol=None asks for none: give a tol")
        if not isinstance(max_passes, int) or max_passes < 2:
            raise ValueError(f"max_passes must be an integer of at least 2, not {max_passes!r}")
        if callback is not None and not callable(callback):
            raise ValueError(f"callback must be callable, not {type(callback).__name__}")
        limits = Limits(-math.inf if tol is None else float(tol), max_passes, _watcher(progress, callback))
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(map(repr, PRECISIONS))}, not {precision!r}")
        return cls(ground, _regularisation(ground, blur, eps), _strengths(ground, reach, rho), limits, precision)


@dataclass(frozen=True)
class Wanted:
    """Which value is wanted, and how it is to be differentiated; ``iterations`` is None unless it is unrolled."""

    value: str
    iterations: int | None

    @classmethod
    def check(cls, value: str, derivative: str, iterations: int | None) -> Wanted:
        """Check the choice of a value and of its derivative.

        Raises:
            ValueError: if there is no such value or derivative, or ``iterations`` does not belong to it.
            NotImplementedError: if the two do not go together, naming what does.
        """
        if value not in ("entropic", "sharp"):
            raise ValueError(f'value must be "entropic" or "sharp", not {value!r}')
        if derivative not in ("auto", "envelope", "implicit", "unrolled"):
            raise ValueError(f'derivative must be "auto", "envelope", "implicit" or "unrolled", not {derivative!r}')
        if (value, derivative) in ONE_SIDED:
            raise NotImplementedError(ONE_SIDED[value, derivative])
        if derivative != "unrolled" and iterations is not None:
            raise ValueError(f'iterations belongs to derivative="unrolled", not to {derivative!r}')
        if derivative == "unrolled" and (isinstance(iterations, bool) or not isinstance(iterations, int)):
            raise ValueError(
                f'iterations, how many to unroll, is required by derivative="unrolled", not {iterations!r}'
            )
        if iterations is not None and iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {iterations}")
        return cls(value, iterations)


#: Derivatives that belong to the other value.
ONE_SIDED = {
    ("sharp", "envelope"): (
        'derivative="envelope" belongs to value="entropic": the sharp value has no envelope. Use "implicit"'
    ),
    ("entropic", "implicit"): (
        'derivative="implicit" belongs to value="sharp": the entropic value does not depend on its potentials to '
        'first order. Use "envelope", whose second derivatives are implicit'
    ),
}


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < math.inf):
        raise ValueError(f"{name} must be a positive finite number, not {value!r}")


def _regularisation(ground: GroundCost, blur: float | None, eps: float | None) -> float:
    if eps is not None and blur is None:
        _check_positive("eps", eps)
        return float(eps)
    if ground.cost is None:
        raise ValueError("eps, the regularisation in units of C, is required")
    if blur is None or eps is not None:
        raise ValueError(
            "exactly one of blur (a length, in the units of the points) and eps (in cost units) is required; "
            + ("both were given" if eps is not None else "neither was given")
        )
    _check_positive("blur", blur)
    return _cost_units(ground, "blur", blur)


def _strengths(ground: GroundCost, reach: Length | None, rho: Length | None) -> tuple[float, float]:
    if reach is not None and rho is not None:
        raise ValueError("at most one of reach (a length) and rho (in cost units) may be given, not both")
    if rho is not None:
        return _pair("rho", rho)
    if reach is None:
        return math.inf, math.inf
    if ground.cost is None:
        raise ValueError("reach needs a cost between points; give rho, in units of C")
    first, second = _pair("reach", reach)
    return _cost_units(ground, "reach", first), _cost_units(ground, "reach", second)


def _cost_units(ground: GroundCost, name: str, length: float) -> float:
    try:
        units = ground.from_length(length)
    except OverflowError:
        units = math.inf
    if not 0 < units < math.inf:
        raise ValueError(f"{name} is {length!r}, which is {units:g} in cost units: rescale the points")
    return units


def _pair(name: str, value: Length) -> tuple[float, float]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name} must be a number or a pair of numbers, not {value!r}")
    for number in pair:
        _check_positive(name, number)
    return float(pair[0]), float(pair[1])


def _watcher(progress: bool, callback: Callback | None) -> Callable[[Check], bool] | None:
    if not progress and callback is None:
        return None

    def watch(check: Check) -> bool:
        if progress:
            _draw(check)
        return callback is not None and callback(check) is True

    return watch


def _draw(check: Check) -> None:
    state = "annealing" if math.isnan(check.marginal_error) else f"marginal error {check.marginal_error:.2e}"
    end = "\n" if check.unfinished == 0 else ""
    sys.stderr.write(f"\r{check.passes:5d} passes, eps {check.eps:.3g}, {state:<28}{end}")
    sys.stderr.flush()
