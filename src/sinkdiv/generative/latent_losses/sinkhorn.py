"""The Sinkhorn loss of codes and draws: the Sinkhorn autoencoder's (P19)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import sinkdiv
from sinkdiv.costs import find_cost
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.latent_losses.rounding import rounded_cost
from sinkdiv.generative.priors import make_prior
from sinkdiv.generative.settings import ABOVE_ZERO, Draft, one_of, setting
from sinkdiv.generative.sinkhorn_settings import SinkhornSettings

#: Of the cost of two draws from the prior: half a unit of squared length on the unit sphere.
EPS_OF_COST = 0.25
LATENT_TOLERANCE = 1e-2
#: Cosines closer to 1 than this have their arccos² from its series, whose next term is 4e-15 there.
NEAR = 0.01


def cost_of_two_draws(draft: Draft) -> float:
    """The mean cost of two draws from the prior: the scale of a run's ε and of the weight of its latent loss.

    Of a product of priors it is the narrowest factor's: a wider factor does well with a small ε, the narrow one not
    with a large one.
    """
    prior = make_prior(draft.prior)
    prior.check(draft.latent_dim)
    squares = [factor.mean_squared_distance(part.stop - part.start) for part, factor in prior.factors(draft.latent_dim)]
    return math.sqrt(min(squares)) if draft.latent_cost == "euclidean" else min(squares)


@dataclass(frozen=True, kw_only=True)
class LatentSinkhornSettings(SinkhornSettings):
    """What a user chooses of the Sinkhorn loss between codes and draws.

    Attributes:
        eps: regularisation, in units of the cost.
        latent_cost: "sqeuclidean", |z−z'|²; "euclidean"; or "geodesic", the squared arc length on the unit sphere.
        debias: what is subtracted from the loss of codes and draws. "self": half the loss of the codes with themselves
            and half that of the draws, the divergence (P19 v3). "independent": the same of codes with other codes of
            the batch and draws with other draws, for which the batch is halved. "none": nothing (P19 v1).
        rounding: take the sharp value of the plan rounded to exact marginals (P19 v3), differentiated implicitly.
        warm_start: begin where the last call ended; results then depend, within the tolerance, on the calls before.
    """

    only_with = ("method", "sae")

    eps: float = setting(
        "Regularisation of the latent divergence.",
        derive=lambda draft: EPS_OF_COST * cost_of_two_draws(draft),
        shown="by prior; 0.5 sphere",
        check=ABOVE_ZERO,
    )
    latent_cost: str = setting(
        "sqeuclidean, euclidean or geodesic.",
        default="sqeuclidean",
        check=one_of("sqeuclidean", "euclidean", "geodesic"),
    )
    debias: str = setting(
        "self, independent (by halves of the batch) or none.",
        default="self",
        check=one_of("self", "independent", "none"),
    )
    rounding: bool = setting("Round the plan to exact marginals.", default=False)
    warm_start: bool = setting("Start where the last step's solve ended.", default=False)

    def check_together(self) -> None:
        super().check_together()
        halves = self.debias == "independent"
        if self.rounding and (halves or self.value != "sharp" or self.derivative == "unrolled" or self.warm_start):
            raise InputError("--rounding: for the sharp value, not unrolled, warm-started or debiased by halves")
        if self.warm_start and halves:
            raise InputError("--warm-start: not with --debias independent, which solves other problems at every step")
        if self.warm_start and self.derivative == "unrolled":
            raise InputError("--warm-start: not with --derivative unrolled, whose iterations begin anew at every step")


class SinkhornLoss:
    """SAE: a Sinkhorn loss between codes and draws.

    Args:
        settings: which loss.
        tol: marginal error. The draws' own noise is far above the default, and a tighter one only costs passes.
    """

    def __init__(self, settings: LatentSinkhornSettings, tol: float = LATENT_TOLERANCE) -> None:
        self.debias, self.rounding = settings.debias, settings.rounding
        cost = geodesic_cost if settings.latent_cost == "geodesic" else settings.latent_cost
        self._problem: dict[str, Any] = {"eps": settings.eps, "cost": cost, "tol": tol}
        loss = sinkdiv.SinkhornDivergence if settings.debias == "self" else sinkdiv.TransportCost
        self.loss = loss(**self._problem, **settings.as_keywords(warm_start=settings.warm_start))

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
            return self._rounded_cost(sinkdiv.solve(*points, **self._problem), codes, draws)
        solved = sinkdiv.solve_divergence(*points, **self._problem)
        within = self._rounded_cost(solved.aa, codes, codes) + self._rounded_cost(solved.bb, draws, draws)
        return self._rounded_cost(solved.ab, codes, draws) - within / 2

    def _rounded_cost(self, solved: sinkdiv.Transport, x: Tensor, y: Tensor) -> Tensor:
        cost = self._problem["cost"]
        costs = cost(x, y) if callable(cost) else find_cost(cost).smooth_matrix(x[None], y[None])[0]
        return rounded_cost(costs, solved.plan(), self._problem["eps"])


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
