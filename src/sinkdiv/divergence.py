"""The Sinkhorn divergence: entropic transport with its bias removed.

    S_ε(α,β) = OT_ε(α,β) − ½ OT_ε(α,α) − ½ OT_ε(β,β)  [+ ε/2 (m_α − m_β)² if the marginals are soft]

It is zero for equal measures, positive otherwise and convex in each argument (F19, Theorem 1, for the costs |x−y|ᵖ with
p ≤ 2), and goes from optimal transport (ε → 0) to an MMD with kernel −c (ε → ∞).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkdiv.derivatives import attach_value
from sinkdiv.ground import CostLike, find_ground_cost
from sinkdiv.measures import Samples, check_any, check_samples, is_list_of_clouds
from sinkdiv.settings import Callback, Length, Settings, Wanted
from sinkdiv.solving import solve_samples, unrolled_value, warn_unless_converged
from sinkdiv.transforms import Partials
from sinkdiv.transport import Transport, given_form


@dataclass(frozen=True)
class Divergence:
    """Three solved problems and what they say of S_ε: ``ab`` between the samples, ``aa`` and ``bb`` within each."""

    ab: Transport
    aa: Transport
    bb: Transport

    @property
    def transports(self) -> tuple[Transport, Transport, Transport]:
        return self.ab, self.aa, self.bb

    @property
    def value(self) -> Tensor:
        """S_ε, 0-d or (B,), differentiable in points and weights. See `sinkhorn_divergence`."""
        if self.ab.between_points:
            value = self._debiased([one.detached_value for one in self.transports], self.ab.excess_mass)
            return self.ab.as_given(attach_value(value, self, *self.ab.differentiable_inputs()))
        excess = self.ab.excess_mass_of(*self.ab.differentiable_inputs()[:2])
        return self.ab.as_given(self._debiased([one.wide_value for one in self.transports], excess))

    @property
    def sharp(self) -> Tensor:
        """The same combination of the sharp values, <P,C>, as differentiable."""
        return self.ab.as_given(self.ab.wide_sharp - (self.aa.wide_sharp + self.bb.wide_sharp) / 2)

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """An interval (lower, upper) that contains S_ε, in float64."""
        (lower_ab, upper_ab), (lower_aa, upper_aa), (lower_bb, upper_bb) = (
            transport.bounds for transport in (self.ab, self.aa, self.bb)
        )
        lower, upper = lower_ab - (upper_aa + upper_bb) / 2, upper_ab - (lower_aa + lower_bb) / 2
        excess = self.ab.excess_mass
        if excess is None:
            return lower, upper
        mass_term = (self.ab.eps / 2 * excess.double().square()).view_as(lower)
        return lower + mass_term, upper + mass_term

    def partials(self, wanted: tuple[bool, ...]) -> Partials:
        """Derivatives of S_ε with respect to (a, b, x, y), batched; None where not wanted."""
        return self._combined(wanted, Transport.partials, self.ab.excess_mass)

    def differentiable_partials(self, wanted: tuple[bool, ...], inputs: tuple[Tensor, ...]) -> Partials:
        """The same, as functions of the inputs."""
        a, b, x, y = inputs
        of = {self.ab: inputs, self.aa: (a, a, x, x), self.bb: (b, b, y, y)}
        excess = self.ab.excess_mass_of(a, b)
        return self._combined(wanted, lambda one, which: one.differentiable_partials(which, of[one]), excess)

    def hessian_product(self, directions: Partials, wanted: tuple[bool, ...]) -> Partials | None:
        """How the partials change along directions (a', b', x', y'), None where they are zero."""
        if not self.ab.all_have_mass:
            return None
        da, db, dx, dy = directions
        along = {self.ab: directions, self.aa: (da, da, dx, dx), self.bb: (db, db, dy, dy)}

        def product(one: Transport, which: tuple[bool, ...]) -> Partials:
            moved = one.hessian_product(along[one], which, one_sided=one.symmetric)
            assert moved is not None, "a divergence that is differentiated as one is between points with mass"
            return moved

        a, b, *_ = self.ab.differentiable_inputs()
        change_a, change_b = (torch.zeros_like(w) if d is None else d for w, d in ((a, da), (b, db)))
        return self._combined(wanted, product, self.ab.excess_mass_of(change_a, change_b))

    def _debiased(self, values: Sequence[Tensor], excess: Tensor | None) -> Tensor:
        debiased = values[0] - (values[1] + values[2]) / 2
        return debiased if excess is None else debiased + self.ab.eps / 2 * excess.square()

    def _combined(
        self,
        wanted: tuple[bool, ...],
        partials: Callable[[Transport, tuple[bool, ...]], Partials],
        excess: Tensor | None,
    ) -> Partials:
        """The partials of the debiased value from those of the three; ``excess`` (B,) belongs to the mass term."""
        within = [_self_partials(one, wanted[side::2], partials) for side, one in enumerate((self.aa, self.bb))]
        own = (within[0][0], within[1][0], within[0][1], within[1][1])
        grads = [
            None if cross is None or half is None else cross - half
            for cross, half in zip(partials(self.ab, wanted), own, strict=True)
        ]
        if excess is not None:
            for side, sign in ((0, 1), (1, -1)):
                grad = grads[side]
                grads[side] = None if grad is None else grad + sign * (self.ab.eps * excess)[:, None]
        return tuple(grads)

    @property
    def converged(self) -> bool | Tensor:
        """Whether tests have found that all three problems met the tolerance."""
        return self.ab.converged & self.aa.converged & self.bb.converged

    def __repr__(self) -> str:
        return f"Divergence(\n  ab={self.ab!r},\n  aa={self.aa!r},\n  bb={self.bb!r},\n)"


def solve_divergence(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    blur: float | None = None,
    eps: float | None = None,
    cost: CostLike = "sqeuclidean",
    reach: Length | None = None,
    rho: Length | None = None,
    tol: float | None = 1e-3,
    max_passes: int = 2000,
    progress: bool = False,
    callback: Callback | None = None,
    precision: str = "high",
) -> Divergence:
    """Solve the three problems of a Sinkhorn divergence and keep them, with their certificates.

    Arguments and errors as in `sinkdiv.solve`; ``max_passes`` bounds each of the three.
    """
    settings = Settings.check(
        find_ground_cost(cost), blur=blur, eps=eps, reach=reach, rho=rho, tol=tol, max_passes=max_passes,
        progress=progress, callback=callback, precision=precision,
    )  # fmt: skip
    samples = settings.ground.featured(check_samples(x, y, a, b, balanced=settings.balanced))
    (divergence,) = solve_checked([samples], settings)
    warn_unless_converged(*divergence.transports)
    return divergence


def sinkhorn_divergence(
    x: Tensor | Sequence[Tensor],
    y: Tensor | Sequence[Tensor],
    a: Tensor | Sequence[Tensor] | None = None,
    b: Tensor | Sequence[Tensor] | None = None,
    *,
    blur: float | None = None,
    eps: float | None = None,
    cost: CostLike = "sqeuclidean",
    reach: Length | None = None,
    rho: Length | None = None,
    value: str = "entropic",
    derivative: str = "auto",
    iterations: int | None = None,
    tol: float | None = 1e-3,
    max_passes: int = 2000,
    progress: bool = False,
    callback: Callback | None = None,
    precision: str = "high",
) -> Tensor:
    """The Sinkhorn divergence S_ε between two weighted samples, as a loss.

    Args:
        value: "entropic", S_ε itself (F19); or "sharp", the same combination of <P_ε, C> (half of G18's loss).
            Positivity is proven for the entropic value only; for the sharp one it is an empirical fact.
        derivative: "auto" is "envelope" (F19) for the entropic value and "implicit" (Q23) for the sharp one; both are
            exact at the optimum, in points, weights and the parameters of a learned cost, and can be differentiated
            again. "unrolled" differentiates a fixed number of plain iterations (G18, P19) and returns the value that
            they have reached, whatever it is: ``tol`` and ``max_passes`` then play no part.
        iterations: how many iterations are unrolled (G18 uses 10 to 100, P19 50).
        x, y, a, b: as in `sinkdiv.solve`; or lists of B tensors each, for B problems of different sizes.
        blur, eps, cost, reach, rho, tol, max_passes, progress, callback, precision: as in `sinkdiv.solve`.

    Returns:
        A 0-d tensor, or (B,) for a batch or for lists, in cost units. Its error is of second order in ``tol``;
        `solve_divergence` gives an interval. Between nearly equal samples it may come out negative by that error.

    Raises:
        ValueError: naming the argument that is wrong, before any work.

    Example:
        >>> x, y = torch.randn(500, 3), torch.randn(400, 3) + 1
        >>> loss = sinkdiv.sinkhorn_divergence(x, y, blur=0.5)
    """
    wanted = Wanted.check(value, derivative, iterations)
    settings = Settings.check(
        find_ground_cost(cost), blur=blur, eps=eps, reach=reach, rho=rho, tol=tol, max_passes=max_passes,
        progress=progress, callback=callback, precision=precision,
    )  # fmt: skip
    samples = [settings.ground.featured(one) for one in check_any(x, y, a, b, balanced=settings.balanced)]
    values = divergence_values(samples, settings, wanted)
    return torch.stack(values) if is_list_of_clouds(x) else values[0]


def divergence_values(
    samples: Sequence[Samples], settings: Settings, wanted: Wanted, solve: Callable[[], list[Divergence]] | None = None
) -> list[Tensor]:
    """The value that is wanted of each pair of featured samples; ``solve`` may have its own way of finding them."""
    if wanted.iterations is not None:
        return [given_form(_unrolled(one, settings, wanted), one) for one in samples]
    divergences = solve() if solve else solve_checked(samples, settings)
    transports = (transport for divergence in divergences for transport in divergence.transports)
    warn_unless_converged(*transports, stacklevel=4)
    return [one.value if wanted.value == "entropic" else one.sharp for one in divergences]


def solve_checked(
    samples: Sequence[Samples], settings: Settings, previous: Transport | None = None
) -> list[Divergence]:
    """Solve the problems of all divergences together; ``previous`` may start the first (`solve_samples`)."""
    problems = [problem for one in samples for problem in _three_problems(one)]
    solved = iter(solve_samples(problems, settings, previous))
    return [Divergence(*three) for three in zip(solved, solved, solved, strict=True)]


def _unrolled(samples: Samples, settings: Settings, wanted: Wanted) -> Tensor:
    """The debiased value (B,) that is wanted, unrolled."""
    ab, aa, bb = (unrolled_value(one, settings, wanted) for one in _three_problems(samples))
    debiased = ab - (aa + bb) / 2
    if settings.balanced or wanted.value == "sharp":
        return debiased
    return debiased + settings.eps / 2 * (samples.a.sum(-1) - samples.b.sum(-1)).square()


def _self_partials(
    within: Transport, wanted: tuple[bool, ...], partials: Callable[[Transport, tuple[bool, ...]], Partials]
) -> Partials:
    """Half the derivatives of OT_ε(α, α) in α's weights and points, for samples whose two sides are one."""
    if within.symmetric:  # both sides contribute the same
        weights, points = wanted
        grad_a, _, grad_x, _ = partials(within, (weights, False, points, False))
        return grad_a, grad_x
    weights, points = wanted
    grad_a, grad_b, grad_x, grad_y = partials(within, (weights, weights, points, points))
    return (
        None if grad_a is None or grad_b is None else (grad_a + grad_b) / 2,
        None if grad_x is None or grad_y is None else (grad_x + grad_y) / 2,
    )


def _three_problems(s: Samples) -> tuple[Samples, Samples, Samples]:
    form = s.batched, s.dtype, s.unit_masses, s.positive
    return s, Samples(s.x, s.x, s.a, s.a, *form), Samples(s.y, s.y, s.b, s.b, *form)
