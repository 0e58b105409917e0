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
from sinkdiv.differentiable import DifferentiableSolution
from sinkdiv.measures import Samples
from sinkdiv.options import Settings
from sinkdiv.solvers.choice import Earlier
from sinkdiv.solving import eps_of_each, solve_samples, unrolled_values
from sinkdiv.transforms import Partials

#: Derivatives of a solution that are wanted.
PartialsOf = Callable[[DifferentiableSolution, tuple[bool, ...]], Partials]


@dataclass(frozen=True, eq=False)
class DebiasedSolution:
    """Three solutions and what they make together: ``ab`` between the samples, ``aa`` and ``bb`` within each."""

    ab: DifferentiableSolution
    aa: DifferentiableSolution
    bb: DifferentiableSolution

    @property
    def parts(self) -> tuple[DifferentiableSolution, ...]:
        """All three; the first is the one between the samples."""
        return self.ab, self.aa, self.bb

    @property
    def value(self) -> Tensor:
        """S_ε, (B,)."""
        inputs = self.ab.inputs.tensors
        if self.ab.has_points:
            value = self._debiased([one.solution.value for one in self.parts], self._own_excess())
            return attach_value(value, self, *inputs)
        return self._debiased([one.value for one in self.parts], self._excess(*inputs[:2]))

    @property
    def sharp(self) -> Tensor:
        """The same combination of the sharp values, (B,)."""
        return self.ab.sharp - (self.aa.sharp + self.bb.sharp) / 2

    def bounds(self) -> tuple[Tensor, Tensor]:
        """An interval (lower, upper), each (B,), that contains S_ε, in float64."""
        (lower_ab, upper_ab), (lower_aa, upper_aa), (lower_bb, upper_bb) = (one.bounds() for one in self.parts)
        lower, upper = lower_ab - (upper_aa + upper_bb) / 2, upper_ab - (lower_aa + lower_bb) / 2
        excess = self._own_excess()
        if excess is None:
            return lower, upper
        mass_term = self._eps.double() / 2 * excess.double().square()
        return lower + mass_term, upper + mass_term

    # What derivatives ask (`sinkdiv.derivatives.attach.Differentiable`).

    def partials(self, wanted: tuple[bool, ...]) -> Partials:
        """Derivatives of S_ε with respect to (a, b, x, y), batched; None where not wanted."""
        return self._combined(wanted, DifferentiableSolution.partials, self._own_excess())

    def differentiable_partials(self, wanted: tuple[bool, ...], inputs: tuple[Tensor, ...]) -> Partials:
        """The same, as functions of the inputs."""
        a, b, x, y = inputs
        of = {self.ab: inputs, self.aa: (a, a, x, x), self.bb: (b, b, y, y)}
        return self._combined(
            wanted, lambda one, which: one.differentiable_partials(which, of[one]), self._excess(a, b)
        )

    def hessian_product(self, directions: Partials, wanted: tuple[bool, ...]) -> Partials | None:
        """How the partials change along directions (a', b', x', y'), None where they are zero."""
        if not self.ab.all_have_mass:
            return None
        da, db, dx, dy = directions
        along = {self.ab: directions, self.aa: (da, da, dx, dx), self.bb: (db, db, dy, dy)}

        def product(one: DifferentiableSolution, which: tuple[bool, ...]) -> Partials:
            moved = one.hessian_product(along[one], which, one_sided=one.problem.symmetric)
            assert moved is not None, "a divergence that is differentiated as one is between points with mass"
            return moved

        a, b, *_ = self.ab.inputs.tensors
        change_a, change_b = (torch.zeros_like(w) if d is None else d for w, d in ((a, da), (b, db)))
        return self._combined(wanted, product, self._excess(change_a, change_b))

    # Parts.

    @property
    def _eps(self) -> Tensor:
        """ε, (B,)."""
        return self.ab.problem.eps_column()[:, 0]

    def _own_excess(self) -> Tensor | None:
        return self._excess(self.ab.problem.a, self.ab.problem.b)

    def _excess(self, a: Tensor, b: Tensor) -> Tensor | None:
        """m_α − m_β, (B,), of weights (B, n) and (B, m), where the marginals are soft; None where they are hard."""
        return None if self.ab.problem.balanced else a.sum(-1) - b.sum(-1)

    def _debiased(self, values: Sequence[Tensor], excess: Tensor | None) -> Tensor:
        debiased = values[0] - (values[1] + values[2]) / 2
        return debiased if excess is None else debiased + self._eps / 2 * excess.square()

    def _combined(self, wanted: tuple[bool, ...], partials: PartialsOf, excess: Tensor | None) -> Partials:
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
                grads[side] = None if grad is None else grad + sign * (self._eps * excess)[:, None]
        return tuple(grads)


def solve_debiased(
    samples: Sequence[Samples], settings: Settings, earlier: Sequence[Earlier | None] = ()
) -> list[DebiasedSolution]:
    """Solve the problems of all divergences together; ``earlier`` as in `solve_samples`, for those between samples."""
    problems = [problem for one in samples for problem in _three_problems(one)]
    starts = [start for one in earlier for start in (one, None, None)]
    solved = iter(solve_samples(problems, settings, starts))
    return [DebiasedSolution(*three) for three in zip(solved, solved, solved, strict=True)]


def unrolled_debiased(samples: Sequence[Samples], settings: Settings) -> list[Tensor]:
    """The debiased values (B,) that are wanted, after some iterations, which are differentiated."""
    problems = [problem for one in samples for problem in _three_problems(one)]
    values = iter(unrolled_values(problems, settings))
    debiased = [ab - (aa + bb) / 2 for ab, aa, bb in zip(values, values, values, strict=True)]
    if settings.balanced or settings.value == "sharp":
        return debiased
    return [
        value + eps / 2 * (one.a.sum(-1) - one.b.sum(-1)).square()
        for value, one, eps in zip(debiased, samples, eps_of_each(settings.eps, samples), strict=True)
    ]


def _self_partials(
    within: DifferentiableSolution, wanted: tuple[bool, ...], partials: PartialsOf
) -> tuple[Tensor | None, Tensor | None]:
    """Half the derivatives of OT_ε(α, α) in α's weights and points, for samples whose two sides are one."""
    if within.problem.symmetric:  # both sides contribute the same
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
