"""Latent losses: how far an encoder's codes of a batch are from draws of the prior.

Each is called as `matching(codes, draws, generator)` with codes (n, d), draws (m, d), both equally weighted, and a CPU
generator for the randomness of its own, if it has any. It returns a scalar in squared latent distance (kernel losses:
see there) that is differentiable in the codes.

- `SinkhornMatching`    SAE (P19)
- `MMDMatching`         WAE-MMD (Tolstikhin et al. 2018)
- `SlicedMatching`      SWAE (Kolouri et al. 2018)
- `GaussianMatching`    W2GAE (a baseline of P19 v3)
- `HungarianMatching`   HAE (P19)
- `EnergyMatching`      the energy distance, the Sinkhorn divergence's limit ε → ∞ for the cost |z−z'|
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

import sinkdiv
from sinkdiv.costs import find_cost, squared_distances
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.rounding import rounded_cost
from sinkdiv.generative.transfer import sent

# Widths of the inverse multiquadratic kernels, relative to the prior's spread (Tolstikhin et al. 2018, their code).
IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
DIRECTIONS = 50
LATENT_TOLERANCE = 1e-2
# Cosines closer to 1 than this have their arccos² from its series, whose next term is 4e-15 there.
NEAR = 0.01


class Matching(Protocol):
    """A latent loss on samples."""

    def __call__(self, codes: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor: ...


class SinkhornMatching:
    """SAE: a Sinkhorn loss between codes and draws.

    Args:
        eps: regularisation, in units of the cost.
        cost: "sqeuclidean", |z−z'|²; "euclidean"; or "geodesic", the squared arc length on the unit sphere.
        value: "entropic" (F19); or "sharp", <P, C> (P19).
        debias: what is subtracted from the loss of codes and draws. "self": half the loss of the codes with themselves
            and half that of the draws, the divergence (P19 v3). "independent": the same of codes with other codes of
            the batch and draws with other draws, for which the batch is halved. "none": nothing (P19 v1).
        derivative: of the value, as in `sinkdiv.sinkhorn_divergence`; "unrolled" (P19) needs `iterations`.
        iterations: how many are unrolled; P19 takes 50.
        rounding: take the sharp value of the plan rounded to exact marginals (P19 v3), differentiated implicitly.
        warm_start: begin where the last call ended; results then depend, within `tol`, on the calls before.
        tol: marginal error. The draws' own noise is far above the default, and a tighter one only costs passes.

    Raises:
        InputError: if options do not go together.
        ValueError, NotImplementedError: as `sinkdiv.sinkhorn_divergence`.
    """

    def __init__(
        self,
        eps: float,
        *,
        cost: str = "sqeuclidean",
        value: str = "entropic",
        debias: str = "self",
        derivative: str = "auto",
        iterations: int | None = None,
        rounding: bool = False,
        warm_start: bool = False,
        tol: float = LATENT_TOLERANCE,
    ) -> None:
        if rounding and (debias == "independent" or value != "sharp" or derivative == "unrolled" or warm_start):
            raise InputError("--rounding: for the sharp value, not unrolled, warm-started or debiased by halves")
        if warm_start and debias == "independent":
            raise InputError("--warm-start: not with --debias independent, which solves other problems at every step")
        ground = geodesic_cost if cost == "geodesic" else cost
        self.debias, self.rounding = debias, rounding
        self._solving: dict[str, Any] = {"eps": eps, "cost": ground, "tol": tol}
        loss = sinkdiv.SinkhornDivergence if debias == "self" else sinkdiv.TransportCost
        self.loss = loss(
            **self._solving, value=value, derivative=derivative, iterations=iterations, warm_start=warm_start
        )

    def __call__(self, codes: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor:
        if self.debias == "independent":
            return self._against_others(codes, draws)
        loss: Tensor = self._rounded(codes, draws) if self.rounding else self.loss(codes, draws)
        return loss

    def _against_others(self, codes: Tensor, draws: Tensor) -> Tensor:
        """An estimate that no point's meeting itself distorts: its expectation is least where the laws are equal.

        In a batch, a code is much nearer to itself than to any other where dimensions are many; the divergence then
        rewards codes that shrink (`docs/decisions/0010`). It may be negative.
        """
        codes, other_codes = _halves(codes)
        draws, other_draws = _halves(draws)
        pairs = ((codes, draws), (other_codes, other_draws), (codes, other_codes), (draws, other_draws))
        costs: Tensor = self.loss(torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs]))
        return (costs[:2].sum() - costs[2:].sum()) / 2

    def _rounded(self, codes: Tensor, draws: Tensor) -> Tensor:
        points = codes.detach(), draws.detach()
        if self.debias == "none":
            return self._rounded_cost(sinkdiv.solve(*points, **self._solving), codes, draws)
        solved = sinkdiv.solve_divergence(*points, **self._solving)
        within = self._rounded_cost(solved.aa, codes, codes) + self._rounded_cost(solved.bb, draws, draws)
        return self._rounded_cost(solved.ab, codes, draws) - within / 2

    def _rounded_cost(self, solved: sinkdiv.Transport, x: Tensor, y: Tensor) -> Tensor:
        cost = self._solving["cost"]
        costs = cost(x, y) if callable(cost) else find_cost(cost).smooth_matrix(x[None], y[None])[0]
        return rounded_cost(costs, solved.plan(), self._solving["eps"])


class MMDMatching:
    """WAE-MMD: `imq_mmd`, without diagonal terms; between −14 and 14, in units of the kernels.

    Args:
        spread: E|z−z'|² of two draws of the prior, `Prior.spread`. For N(0, σ²I) it is 2dσ², the paper's constant.
    """

    def __init__(self, spread: float) -> None:
        self.spread = spread

    def __call__(self, codes: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor:
        return imq_mmd(codes, draws, self.spread)


class SlicedMatching:
    """SWAE: the mean over 50 random unit directions of the squared 1-D Wasserstein-2 distance, by sorting.

    Its expectation is of the order of W2²/d: no factor d is put in, as in the paper.
    """

    def __call__(self, codes: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor:
        _require_equal_counts(codes, draws)
        normal = torch.randn(codes.shape[-1], DIRECTIONS, generator=generator, dtype=torch.float64)
        directions = sent(functional.normalize(normal, dim=0), codes.device, codes.dtype)
        return ((codes @ directions).sort(0).values - (draws @ directions).sort(0).values).square().mean()


class GaussianMatching:
    """W2GAE: the squared Wasserstein-2 distance of the Gaussians with the means and covariances of codes and draws.

    |m−m'|² + tr A + tr B − 2 tr (A^½ B A^½)^½ with the plain sample covariances (divided by the count). Both are fitted
    to samples, so that codes and draws of one law have the same bias. Draws are taken as constants.
    """

    def __call__(self, codes: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor:
        wide_codes, wide_draws = codes.double(), draws.detach().double()
        mean, other_mean = wide_codes.mean(0), wide_draws.mean(0)
        deviations, others = (wide_codes - mean) / len(codes) ** 0.5, (wide_draws - other_mean) / len(draws) ** 0.5
        values, vectors = torch.linalg.eigh(others.T @ others)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        # With A = XᵀX the fidelity is the nuclear norm of X B^½, whose derivative has no root of an eigenvalue in it.
        fidelity = torch.linalg.svdvals(deviations @ root).sum()
        distance: Tensor = (mean - other_mean).square().sum() + deviations.square().sum() + values.sum() - 2 * fidelity
        return distance.to(codes.dtype)


class HungarianMatching:
    """HAE: the mean |z−z'|² under the optimal assignment; its gradient is exact by the envelope theorem."""

    def __call__(self, codes: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor:
        _require_equal_counts(codes, draws)
        costs = squared_distances(codes.detach()[None], draws.detach()[None])[0]
        _, partners = linear_sum_assignment(costs.cpu().numpy())
        return (codes - draws[torch.from_numpy(partners).to(draws.device)]).square().sum(-1).mean()


class EnergyMatching:
    """Half the energy distance, E|z−z'| − ½E|z−z₂| − ½E|z'−z'₂|, diagonal terms included; a latent distance."""

    def __call__(self, codes: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor:
        return sinkdiv.mmd(codes, draws, kernel="energy")


def _halves(points: Tensor) -> tuple[Tensor, Tensor]:
    half = len(points) // 2
    return points[:half], points[half : 2 * half]


def geodesic_cost(x: Tensor, y: Tensor) -> Tensor:
    """Squared arc lengths (n, m) between points (n, d) and (m, d) of the unit sphere.

    It agrees with |x−y|² to second order where points are close, so ε means the same there. Its Gibbs kernel is not
    positive definite on a sphere (Feragen et al. 2015): the debiased value may be negative. The gradient exists at
    coincident points; near antipodal ones, where the arc has none, it is cut to zero.
    """
    cosines = x @ y.mT
    gap = 1 - cosines
    near = gap < NEAR
    safe = cosines.clamp(min=-1 + 4 * torch.finfo(x.dtype).eps, max=1 - NEAR / 2)
    # arccos² is smooth at 1, arccos is not.
    series = gap * (2 + gap * (1 / 3 + gap * (4 / 45 + gap * (1 / 35 + gap * (16 / 1575)))))
    return torch.where(near, series, torch.arccos(safe).square())


def imq_mmd(codes: Tensor, draws: Tensor, spread: float, *, unbiased: bool = True) -> Tensor:
    """Squared MMD of codes (n, d) and draws (m, d) in inverse multiquadratic kernels, as WAE trains and P19 reports.

    Σ over scales s in (.1, .2, .5, 1, 2, 5, 10) of k(z,z') = C/(C + |z−z'|²) with C = s·spread: the plain sum, not the
    mean. P19's tables give 1000 times such a number. Memory O(nm).

    Args:
        spread: E|z−z'|² of two draws of the prior.
        unbiased: leave out the pairs of a point with itself (U-statistic, WAE), so that the expectation is 0 for
            samples of one law; if False the value is that of the empirical measures, at least 0.
    """
    within = _mean_kernel(codes, codes, spread, unbiased) + _mean_kernel(draws, draws, spread, unbiased)
    return within - 2 * _mean_kernel(codes, draws, spread, False)


def _mean_kernel(x: Tensor, y: Tensor, spread: float, off_diagonal: bool) -> Tensor:
    squares = squared_distances(x[None], y[None])[0]
    kernel = sum((scale * spread / (scale * spread + squares) for scale in IMQ_SCALES), torch.zeros_like(squares))
    if not off_diagonal:
        return kernel.mean()
    return (kernel.sum() - kernel.diagonal().sum()) / (len(x) * (len(x) - 1))


def _require_equal_counts(codes: Tensor, draws: Tensor) -> None:
    if len(codes) != len(draws):
        raise ValueError(f"codes and draws must be equally many, not {len(codes)} and {len(draws)}")
