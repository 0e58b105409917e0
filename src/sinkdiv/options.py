"""What is computed, how accurately and how: every option of the public functions, declared, documented, checked once.

Functions and modules take their keywords from the three kinds below, and the command line its help. What the inside
sees is `Settings`: one frozen object, in cost units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import NoneType
from typing import Annotated, Any, Required, TypeAlias, TypedDict

import torch
from torch import Tensor

from sinkdiv import checks
from sinkdiv.costs import CostLike, PointCost, point_cost
from sinkdiv.declarations import REQUIRED, Option, given_options
from sinkdiv.solvers import Limits
from sinkdiv.solvers.choice import Auto, IterativeSolver, Solver, Unrolled
from sinkdiv.transforms import check_transforms, untraced

#: A number, or a tensor (B,) with a number for each problem.
Numbers: TypeAlias = float | Tensor

#: A number for both sides, or a pair.
Sides: TypeAlias = float | tuple[float, float]


# What is checked of an option alone.


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < math.inf):
        raise ValueError(f"{name} must be a positive finite number, not {value!r}")
    return float(value)


def _numbers(name: str, value: Any) -> Numbers | None:
    """A number, or in float64 a tensor of several."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        raise ValueError(f"{name} must be a number or a tensor (B,), not {value!r}: torch.tensor makes one of a list")
    if not isinstance(value, Tensor):
        return _positive(name, value)
    check_transforms(value)
    if value.requires_grad:
        raise NotImplementedError(f"there is no derivative in {name}: give {name}.detach()")
    checks.check_floating(name, value)
    if value.ndim == 0:
        return _positive(name, value.item())
    if value.ndim != 1 or not len(value):
        raise ValueError(f"{name} must be a number or a tensor (B,), not one of shape {checks.shape_text(value)}")
    numbers = value.double()
    _check_numbers(name, numbers, "must hold positive finite numbers")
    return numbers


def _check_numbers(name: str, values: Tensor, expected: str) -> None:
    if not checks.is_captured(values) and not bool(((values > 0) & (values < torch.inf)).all()):
        raise ValueError(f"{name} {expected}, not {values.tolist()!r}")


def _sides(name: str, value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or isinstance(value, Tensor):
        raise ValueError(f"{name} must be a number or a pair of numbers for the two sides, not {value!r}")
    return _positive(name, pair[0]), _positive(name, pair[1])


def _cost(_: str, value: Any) -> PointCost:
    return point_cost(value)


def _value(name: str, value: Any) -> str:
    if value not in ("entropic", "sharp"):
        raise ValueError(f'{name} must be "entropic" or "sharp", not {value!r}')
    return str(value)


def _derivative(name: str, value: Any) -> str:
    if value not in ("auto", "envelope", "implicit", "unrolled"):
        raise ValueError(f'{name} must be "auto", "envelope", "implicit" or "unrolled", not {value!r}')
    return str(value)


def _tolerance(name: str, value: Any) -> float | None:
    return None if value is None else _positive(name, value)


def _solver(name: str, value: Any) -> Solver:
    if not isinstance(value, Solver):
        raise ValueError(f"{name} must be a solver such as sinkdiv.Auto() or sinkdiv.Sinkhorn(), not {value!r}")
    return value


def _iterative_solver(name: str, value: Any) -> Solver:
    if isinstance(value, Unrolled):
        raise ValueError(
            f"{name} must find a converged plan here: Unrolled() is for sinkhorn_divergence, transport_cost and their "
            "modules"
        )
    return _solver(name, value)


# The declarations.


class _BetweenPoints(TypedDict, total=False):
    blur: Annotated[
        Numbers | None,
        Option(
            None,
            "the regularisation as a length σ in the units of the points: ε = p·σᵖ for the cost |x−y|ᵖ. A tensor (B,) "
            "gives each problem of a batch or of lists its own. Exactly one of ``blur`` and ``eps`` is required.",
            _numbers,
        ),
    ]
    eps: Annotated[
        Numbers | None,
        Option(
            None,
            "the regularisation ε in cost units. A tensor (B,) gives each problem of a batch or of lists its own.",
            _numbers,
        ),
    ]
    cost: Annotated[
        CostLike,
        Option(
            "sqeuclidean",
            'the cost between points. By name "sqeuclidean", |x−y|², or "euclidean", |x−y|; any other power as a '
            '`PowerCost`; "cosine", 1 − x·y/(|x||y|), for which a length is one of chords between directions, '
            "ε = blur²; or learned: a module that maps points to features (under |·|², or see `FeatureCost`), "
            "streamed like the named ones; or any function of (x, y) that returns their cost matrix, (n, m) or "
            "(B, n, m), which takes ``eps`` and ``rho`` and is held in memory.",
            _cost,
        ),
    ]
    reach: Annotated[
        Sides | None,
        Option(
            None,
            "softens the marginals, as a length: ρ = p·reachᵖ, or a pair for the two sides. Balanced, with equal "
            "masses, if omitted.",
            _sides,
        ),
    ]
    rho: Annotated[
        Sides | None,
        Option(
            None,
            "softens the marginals, as a strength ρ in cost units, or a pair for the two sides. At most one of "
            "``reach`` and ``rho``.",
            _sides,
        ),
    ]


class _OfMatrix(TypedDict, total=False):
    eps: Required[
        Annotated[
            Numbers,
            Option(
                REQUIRED,
                "the regularisation ε, in units of C. A tensor (B,) gives each problem of a batch its own.",
                _numbers,
            ),
        ]
    ]
    rho: Annotated[
        Sides | None,
        Option(
            None,
            "softens the marginals, as a strength ρ in units of C, or a pair for the two sides. Balanced, with equal "
            "masses, if omitted.",
            _sides,
        ),
    ]


class _OfLoss(TypedDict, total=False):
    value: Annotated[
        str,
        Option(
            "entropic",
            'which value: "entropic", with ε KL(P|abᵀ) in it (F19); or "sharp", of <P, C> alone (half of G18\'s loss '
            "if debiased). A divergence is proven to be positive for the entropic value only; for the sharp one it is "
            "an empirical fact.",
            _value,
        ),
    ]
    derivative: Annotated[
        str,
        Option(
            "auto",
            'how the value is differentiated: "auto" is "envelope" (F19) for the entropic value and "implicit" (Q23) '
            "for the sharp one. Both are exact at the optimum, in points, weights and the parameters of a learned "
            'cost, and can be differentiated again. "unrolled" belongs to ``solver=Unrolled(...)`` and is what "auto" '
            "means there.",
            _derivative,
        ),
    ]


class _Accurate(TypedDict, total=False):
    tol: Annotated[
        float | None,
        Option(
            1e-3,
            "the relative L1 marginal error to reach at the target ε. None asks for just ``max_passes`` of the solver "
            "and no test (in pairs of passes, unless both sides are one). Nothing is then read back from the device, "
            "so that the solve can be captured into a CUDA graph, where values of the samples are not checked either. "
            "Its status is ``Status.FIXED``, `converged` is False, and nothing warns: look at `marginal_error`.",
            _tolerance,
        ),
    ]


HOW = (
    "how the problem is solved. `Auto()`, `Sinkhorn()`, `Newton()` or `LBFGS()`, with ``max_passes``, ``warm_start``, "
    "``precision``, ``progress`` and ``callback`` as their options."
)


class _Solved(TypedDict, total=False):
    solver: Annotated[IterativeSolver, Option(Auto(), HOW, _iterative_solver)]


class _SolvedOrUnrolled(TypedDict, total=False):
    solver: Annotated[
        Solver,
        Option(
            Auto(),
            HOW
            + " `Unrolled(iterations=...)` makes plain iterations instead and differentiates them as they are (G18, "
            "P19).",
            _solver,
        ),
    ]


class TransportOptions(_BetweenPoints, _Accurate, _Solved, total=False):
    """The options of a transport problem between points."""


class MatrixOptions(_OfMatrix, _Accurate, _Solved, total=False):
    """The options of a transport problem with a cost matrix."""


class LossOptions(_BetweenPoints, _OfLoss, _Accurate, _SolvedOrUnrolled, total=False):
    """The options of a loss between points."""


# What the inside sees.


@dataclass(frozen=True, eq=False)
class Settings:
    """Checked options.

    Attributes:
        cost: the cost between points; None for a cost matrix.
        eps: the regularisation ε in cost units, or a tensor (B,) in float64 with one for each problem.
        rho: the strengths ρ of the marginals of both sides in cost units; infinite if they are hard.
        tol: the marginal error to reach; None if nothing is tested.
        solver: how to solve.
        value: which value a loss wants, "entropic" or "sharp".
        eps_name: how the user gave ε, "eps" or "blur".
    """

    cost: PointCost | None
    eps: Numbers
    rho: tuple[float, float]
    tol: float | None
    solver: Solver
    value: str = "entropic"
    eps_name: str = "eps"

    @property
    def balanced(self) -> bool:
        """Whether the marginals are hard constraints."""
        return math.isinf(self.rho[0])

    @property
    def iterative(self) -> IterativeSolver:
        """The solver, where it is known that it iterates to a tolerance."""
        assert isinstance(self.solver, IterativeSolver), "unrolled iterations have no tolerance"
        return self.solver

    @cached_property
    def limits(self) -> Limits:
        """When a solve ends."""
        return self.iterative.limits(self.tol)


@untraced
def settled(function: str, kind: type, given: Mapping[str, Any]) -> Settings:
    """The settings that a function's options come to; ``kind`` is one of the three kinds above.

    Plain options are checked once: a loss is called many times with the same.

    Raises:
        TypeError: if the function has no such option.
        ValueError: naming the option that is wrong.
        NotImplementedError: if a value has no such derivative, naming what does go together.
    """
    if all(_is_plain(value) for value in given.values()):
        return _remembered(function, kind, tuple(given), *given.values())
    return _settled(function, kind, given)


def _is_plain(value: Any) -> bool:
    """Whether a value can be compared, and be kept without keeping anything else alive."""
    return type(value) in (float, int, str, NoneType) or (isinstance(value, Solver) and value.is_plain)


@lru_cache(maxsize=256, typed=True)
def _remembered(function: str, kind: type, names: tuple[str, ...], *values: Any) -> Settings:
    return _settled(function, kind, dict(zip(names, values, strict=True)))


def _settled(function: str, kind: type, given: Mapping[str, Any]) -> Settings:
    options = given_options(function, kind, given)
    cost, tol, solver = options.get("cost"), options["tol"], options["solver"]
    _check_loss(options)
    _check_untested(tol, solver)
    eps = _regularisation(cost, options.get("blur"), options["eps"])
    rho = _strengths(cost, options.get("reach"), options["rho"])
    eps_name = "blur" if options["eps"] is None else "eps"
    return Settings(cost, eps, rho, tol, solver, options.get("value", "entropic"), eps_name)


#: Derivatives that belong to the other value.
ONE_SIDED: dict[tuple[Any, Any], str] = {
    ("sharp", "envelope"): (
        'derivative="envelope" belongs to value="entropic": the sharp value has no envelope. Use "implicit"'
    ),
    ("entropic", "implicit"): (
        'derivative="implicit" belongs to value="sharp": the entropic value does not depend on its potentials to '
        'first order. Use "envelope", whose second derivatives are implicit'
    ),
}


def _check_loss(options: Mapping[str, Any]) -> None:
    """Refuse a value, a derivative and a solver that do not go together."""
    value, derivative, solver = options.get("value"), options.get("derivative", "auto"), options["solver"]
    if (value, derivative) in ONE_SIDED:
        raise NotImplementedError(ONE_SIDED[value, derivative])
    if isinstance(solver, Unrolled) and derivative not in ("auto", "unrolled"):
        raise ValueError(f'solver={solver!r} belongs to derivative="unrolled", not to {derivative!r}')
    if derivative == "unrolled" and not isinstance(solver, Unrolled):
        raise ValueError(
            f'derivative="unrolled" requires a solver that says how many iterations, such as '
            f"sinkdiv.Unrolled(iterations=50), not {solver!r}"
        )


def _check_untested(tol: float | None, solver: Solver) -> None:
    """Refuse what needs convergence tests where there are none."""
    if tol is not None or not isinstance(solver, IterativeSolver):
        return
    if solver.progress or solver.callback is not None:
        raise ValueError("progress and callback see convergence tests, but tol=None asks for none: give a tol")
    if solver.holds_costs:
        raise ValueError(f"solver={solver!r} goes by convergence tests, but tol=None asks for none: give a tol")


def _regularisation(cost: PointCost | None, blur: Numbers | None, eps: Numbers | None) -> Numbers:
    if eps is not None and blur is None:
        return eps
    if cost is None or cost.streamed is None:
        raise ValueError(
            "eps, the regularisation in units of the cost, is required: a cost function has no lengths, such as blur"
        )
    if blur is None or eps is not None:
        raise ValueError(
            "exactly one of blur (a length, in the units of the points) and eps (in cost units) is required; "
            + ("both were given" if eps is not None else "neither was given")
        )
    if not isinstance(blur, Tensor):
        return _cost_units(cost, "blur", blur)
    units = cost.from_length(blur)
    _check_numbers("blur", units, "must be positive and finite in cost units too (rescale the points)")
    return units


def _strengths(
    cost: PointCost | None, reach: tuple[float, float] | None, rho: tuple[float, float] | None
) -> tuple[float, float]:
    if reach is not None and rho is not None:
        raise ValueError("at most one of reach (a length) and rho (in cost units) may be given, not both")
    if rho is not None:
        return rho
    if reach is None:
        return math.inf, math.inf
    if cost is None or cost.streamed is None:
        raise ValueError("reach needs a cost between points; give rho, in units of C")
    return _cost_units(cost, "reach", reach[0]), _cost_units(cost, "reach", reach[1])


def _cost_units(cost: PointCost, name: str, length: float) -> float:
    """A length in cost units."""
    try:
        units = cost.from_length(length)
    except OverflowError:
        units = math.inf
    if not 0 < units < math.inf:
        raise ValueError(f"{name} is {length!r}, which is {units:g} in cost units: rescale the points")
    return units
