"""From samples to the value of a loss: solved to a tolerance, or by unrolled iterations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkdiv.debiased import DebiasedSolution, solve_debiased, unrolled_debiased
from sinkdiv.differentiable import DifferentiableSolution
from sinkdiv.measures import Samples, given_form, is_list_of_clouds
from sinkdiv.options import Settings
from sinkdiv.solvers.choice import Earlier, Unrolled
from sinkdiv.solving import checked_samples, solve_samples, unrolled_values, warn_unless_converged

Solve = Callable[
    [Sequence[Samples], Settings, Sequence[Earlier | None]], Sequence[DifferentiableSolution | DebiasedSolution]
]


@dataclass(frozen=True)
class Loss:
    """A loss between samples: how its problems are solved, and its values (B,) if iterations are unrolled instead."""

    solve: Solve
    unroll: Callable[[Sequence[Samples], Settings], list[Tensor]]

    def __call__(
        self, x: Any, y: Any, a: Any, b: Any, settings: Settings, earlier: Callable[[int], Sequence[Earlier | None]]
    ) -> tuple[Tensor, list[DifferentiableSolution]]:
        """The value in the caller's form, 0-d or (B,), and the solutions between the samples, none if unrolled.

        ``earlier`` says for so many pairs of samples what their solves start from.
        """
        samples = checked_samples(x, y, a, b, settings)
        if isinstance(settings.solver, Unrolled):
            solved: Sequence[DifferentiableSolution | DebiasedSolution] = ()
            values = self.unroll(samples, settings)
        else:
            solved = self.solve(samples, settings, earlier(len(samples)))
            warn_unless_converged([part for one in solved for part in one.parts])
            values = [one.value if settings.value == "entropic" else one.sharp for one in solved]
        given = [given_form(value, one) for value, one in zip(values, samples, strict=True)]
        return torch.stack(given) if is_list_of_clouds(x) else given[0], [one.parts[0] for one in solved]


#: OT_ε, and the debiased S_ε.
TRANSPORT = Loss(solve_samples, unrolled_values)
DIVERGENCE = Loss(solve_debiased, unrolled_debiased)


def given_starts(settings: Settings, count: int) -> Sequence[Earlier | None]:
    """The earlier problems that ``warm_start`` of the solver names, for so many pairs of samples; () for none.

    Raises:
        ValueError: if it is True, which only a module can follow, or does not name one for each.
    """
    given = settings.iterative.warm_start
    if given is False:
        return ()
    if given is True:
        raise ValueError(
            "warm_start=True is for modules, which remember their last call: give a function the Transport or "
            "Divergence to start from"
        )
    several = [given] if isinstance(given, Earlier) else list(given)
    if len(several) != count:
        raise ValueError(f"warm_start must hold one solved problem for each of {count}, not {len(several)}")
    return several
