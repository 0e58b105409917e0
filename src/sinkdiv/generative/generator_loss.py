"""The loss of a Sinkhorn generator (Genevay, Peyré, Cuturi, AISTATS 2018: G18)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import sinkdiv
from sinkdiv.costs import COSTS, LOW_DIMENSION
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.settings import Check, Draft, one_of, setting
from sinkdiv.generative.sinkhorn_settings import SinkhornSettings

LEARNED = "learned"
#: Of the cost of two training images: for MNIST under |x−y|² the ε = 1 of G18.
EPS_OF_COST = 0.01
LOSS_TOLERANCE = 1e-2


def default_eps(draft: Draft) -> float:
    """A part of the mean cost of two images. Features have a scale of their own, which changes; the limit has none."""
    if draft.cost == LEARNED:
        return math.inf
    square = draft.images.mean_squared_distance
    return float(f"{EPS_OF_COST * (square if draft.cost == 'sqeuclidean' else math.sqrt(square)):.2g}")


@dataclass(frozen=True, kw_only=True)
class GeneratorLossSettings(SinkhornSettings):
    """What a user chooses of the loss between samples and data, anywhere between optimal transport and an MMD.

    Where ε is infinite the plan is the product of the marginals, so that `value`, `derivative` and `iterations` play no
    part; the debiased loss is then the energy distance, ½‖α−β‖² in the kernel −|x−y|. Under |x−y|² it would be the
    squared difference of the two means, and without debiasing the mean cost, which a single point minimises: both are
    refused.

    Attributes:
        cost: "sqeuclidean", |x−y|²; "euclidean", |x−y|; "learned", |f(x)−f(y)|, for which the loss is given features.
        eps: regularisation in cost units; `math.inf` is the MMD.
        value: as `SinkhornSettings` has it, but sharp unless chosen otherwise (G18).
        debias: "self" if the two self terms are taken off, "none" if not.
    """

    cost: str = setting(
        "sqeuclidean, euclidean, or learned by a critic.", default="sqeuclidean", check=one_of(*COSTS, LEARNED)
    )
    eps: float = setting(
        "Regularisation; inf is the MMD.",
        derive=default_eps,
        shown="by data; learned: inf",
        check=Check(lambda eps: eps > 0, "more than zero; inf is the MMD"),
    )
    value: str = setting("sharp as in the paper, or entropic.", default="sharp", check=one_of("sharp", "entropic"))
    debias: str = setting("self, the divergence, or none.", default="self", check=one_of("self", "none"))

    def check_together(self) -> None:
        super().check_together()
        if math.isinf(self.eps) and self.cost == "sqeuclidean":
            raise InputError(
                "--eps inf: under the cost sqeuclidean the limit sees the two means only; use --cost euclidean, whose "
                "limit is the energy distance"
            )
        if math.isinf(self.eps) and self.debias == "none":
            raise InputError("--eps inf: without debiasing the limit is the mean cost, which a single point minimises")


@dataclass(frozen=True)
class GeneratorLoss:
    """A divergence between generated samples and data.

    It is the library's value: G18's loss, 2·OT(x,y) − OT(x,x) − OT(y,y), is twice the debiased one.

    Attributes:
        settings: which divergence.
        tol: relative marginal error of each solve. The sampling noise of a batch is far above the default.
    """

    settings: GeneratorLossSettings
    tol: float = LOSS_TOLERANCE

    def __call__(self, samples: Tensor, data: Tensor) -> Tensor:
        """The loss, a scalar in cost units, between samples (n, k) and data (m, k), or between their features."""
        chosen = self.settings
        if math.isinf(chosen.eps):
            return sinkdiv.mmd(samples, data, kernel="energy")
        divergence = sinkdiv.sinkhorn_divergence if chosen.debias == "self" else sinkdiv.transport_cost
        cost = self._cost(samples.shape[1])
        return divergence(samples, data, eps=chosen.eps, cost=cost, tol=self.tol, **chosen.as_keywords())

    def _cost(self, dimension: int) -> Any:
        name = "euclidean" if self.settings.cost == LEARNED else self.settings.cost
        if self.settings.derivative != "unrolled" or dimension <= LOW_DIMENSION:
            return name
        # A streamed cost is formed anew in each iteration, which costs most of the time where points have many
        # coordinates; a batch's matrix fits into memory.
        return lambda x, y: COSTS[name].smooth_matrix(x[None], y[None])[0]
