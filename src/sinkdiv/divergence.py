"""The Sinkhorn divergence: entropic transport with its bias removed.

    S_ε(α,β) = OT_ε(α,β) − ½ OT_ε(α,α) − ½ OT_ε(β,β)  [+ ε/2 (m_α − m_β)² if the marginals are soft]

It is zero for equal measures, positive otherwise and convex in each argument (F19, Theorem 1, for the costs here), and
goes from optimal transport (ε → 0) to an MMD with kernel −c (ε → ∞).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sinkdiv.costs import find_cost
from sinkdiv.measures import Samples, check_samples
from sinkdiv.settings import Callback, Length, Settings, check_value
from sinkdiv.transport import Transport, solve_samples, warn_unless_converged


@dataclass(frozen=True)
class Divergence:
    """Three solved problems and what they say of S_ε: ``ab`` between the samples, ``aa`` and ``bb`` within each."""

    ab: Transport
    aa: Transport
    bb: Transport
    mass_term: Tensor
    """ε/2 (m_α − m_β)², (B,), in the dtype of the computation; zero if the marginals are hard."""

    @property
    def value(self) -> Tensor:
        """S_ε, 0-d or (B,), differentiable once in points and weights. See `sinkhorn_divergence`."""
        value = self.ab.wide_value - (self.aa.wide_value + self.bb.wide_value) / 2
        return self.ab.as_given(value + self.mass_term)

    @property
    def sharp(self) -> Tensor:
        """The same combination of the sharp values, <P,C>; without derivative."""
        return self.ab.as_given(self.ab.wide_sharp - (self.aa.wide_sharp + self.bb.wide_sharp) / 2)

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """An interval (lower, upper) that contains S_ε, in float64."""
        (lower_ab, upper_ab), (lower_aa, upper_aa), (lower_bb, upper_bb) = (
            transport.bounds for transport in (self.ab, self.aa, self.bb)
        )
        mass_term = self.mass_term.detach().double().view_as(lower_ab)
        return lower_ab - (upper_aa + upper_bb) / 2 + mass_term, upper_ab - (lower_aa + lower_bb) / 2 + mass_term

    @property
    def converged(self) -> bool | Tensor:
        """Whether all three problems met the tolerance."""
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
    cost: str = "sqeuclidean",
    reach: Length | None = None,
    rho: Length | None = None,
    tol: float = 1e-3,
    max_passes: int = 2000,
    progress: bool = False,
    callback: Callback | None = None,
) -> Divergence:
    """Solve the three problems of a Sinkhorn divergence and keep them, with their certificates.

    Arguments and errors as in `sinkdiv.solve`; ``max_passes`` bounds each of the three.
    """
    settings = Settings.check(
        find_cost(cost), blur=blur, eps=eps, reach=reach, rho=rho, tol=tol, max_passes=max_passes,
        progress=progress, callback=callback,
    )  # fmt: skip
    divergence = _solve(check_samples(x, y, a, b, balanced=settings.balanced), settings)
    warn_unless_converged(divergence.ab, divergence.aa, divergence.bb)
    return divergence


def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    blur: float | None = None,
    eps: float | None = None,
    cost: str = "sqeuclidean",
    reach: Length | None = None,
    rho: Length | None = None,
    value: str = "entropic",
    derivative: str = "auto",
    tol: float = 1e-3,
    max_passes: int = 2000,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    """The Sinkhorn divergence S_ε between two weighted samples, as a loss.

    Args:
        value: "entropic", S_ε itself (F19), differentiable once in points and weights; or "sharp", the same
            combination of <P_ε, C> (half of G18's loss), without derivative. Positivity is proven for the entropic
            value only; for the sharp one it is an empirical fact.
        derivative: "auto" or "envelope".
        x, y, a, b, blur, eps, cost, reach, rho, tol, max_passes, progress, callback: as in `sinkdiv.solve`.

    Returns:
        A 0-d tensor, or (B,) for a batch, in cost units. Its error is of second order in ``tol``; `solve_divergence`
        gives an interval. Between nearly equal samples it may come out negative by that error.

    Raises:
        ValueError: naming the argument that is wrong, before any work.

    Example:
        >>> x, y = torch.randn(500, 3), torch.randn(400, 3) + 1
        >>> loss = sinkdiv.sinkhorn_divergence(x, y, blur=0.5)
    """
    check_value(value, derivative)
    settings = Settings.check(
        find_cost(cost), blur=blur, eps=eps, reach=reach, rho=rho, tol=tol, max_passes=max_passes,
        progress=progress, callback=callback,
    )  # fmt: skip
    divergence = _solve(check_samples(x, y, a, b, balanced=settings.balanced), settings)
    warn_unless_converged(divergence.ab, divergence.aa, divergence.bb)
    return divergence.value if value == "entropic" else divergence.sharp


def _solve(samples: Samples, settings: Settings) -> Divergence:
    ab = solve_samples(samples, settings)
    aa = solve_samples(Samples(samples.x, samples.x, samples.a, samples.a, samples.batched, samples.dtype), settings)
    bb = solve_samples(Samples(samples.y, samples.y, samples.b, samples.b, samples.batched, samples.dtype), settings)
    excess = samples.a.sum(-1) - samples.b.sum(-1)
    mass_term = torch.zeros_like(excess) if settings.balanced else settings.eps / 2 * excess.square()
    return Divergence(ab, aa, bb, mass_term)
