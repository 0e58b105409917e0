"""The loss of a Sinkhorn generator (Genevay, Peyré, Cuturi, AISTATS 2018: G18)."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import sinkdiv
from sinkdiv.costs import COSTS, LOW_DIMENSION
from sinkdiv.generative.errors import InputError
from sinkdiv.settings import Wanted

LEARNED = "learned"
COST_NAMES = (*COSTS, LEARNED)


@dataclass(frozen=True)
class GeneratorLoss:
    """A divergence between generated samples and data, anywhere between optimal transport and an MMD.

    It is the library's value: G18's loss, 2·OT(x,y) − OT(x,x) − OT(y,y), is twice the debiased one. Where ε is infinite
    the plan is the product of the marginals, so that `value`, `derivative` and `iterations` play no part; the debiased
    loss is then the energy distance, ½‖α−β‖² in the kernel −|x−y|. Under |x−y|² it would be the squared difference of
    the two means, and without debiasing the mean cost, which a single point minimises: both are refused.

    Attributes:
        eps: regularisation in cost units; `math.inf` is the MMD.
        cost: "sqeuclidean", |x−y|²; "euclidean", |x−y|; "learned", |f(x)−f(y)|, for which the loss is given features.
        value: "sharp", <P, C> (G18), or "entropic", OT_ε (F19).
        debiased: whether the two self terms are taken off.
        derivative: "auto", exact at the optimum; or "unrolled", through a fixed number of iterations (G18). "implicit"
            and "envelope" are the names of the exact ones, of the sharp and of the entropic value.
        iterations: how many are unrolled (G18: 10 to 100).
        tol: relative marginal error of each solve. The sampling noise of a batch is far above the default.
        max_passes: bound on the passes of each solve.

    Raises:
        InputError: naming the option that is wrong.
    """

    eps: float
    cost: str = "sqeuclidean"
    value: str = "sharp"
    debiased: bool = True
    derivative: str = "auto"
    iterations: int | None = None
    tol: float = 1e-2
    max_passes: int = 2000

    def __post_init__(self) -> None:
        if self.cost not in COST_NAMES:
            raise InputError(f"--cost {self.cost}: expected {' or '.join(COST_NAMES)}")
        if not self.eps > 0:
            raise InputError(f"--eps {self.eps}: expected more than zero; inf is the MMD")
        if not 0 < self.tol < math.inf:
            raise InputError(f"--tol {self.tol}: expected more than zero")
        try:
            Wanted.check(self.value, self.derivative, self.iterations)
        except (ValueError, NotImplementedError) as error:
            raise InputError(
                f"--value {self.value} --derivative {self.derivative} --iterations {self.iterations}: {error}"
            ) from error
        if math.isinf(self.eps):
            self._check_limit()

    def _check_limit(self) -> None:
        if self.cost == "sqeuclidean":
            raise InputError(
                "--eps inf: under the cost sqeuclidean the limit sees the two means only; use --cost euclidean, whose "
                "limit is the energy distance"
            )
        if not self.debiased:
            raise InputError("--eps inf: without debiasing the limit is the mean cost, which a single point minimises")

    def __call__(self, samples: Tensor, data: Tensor) -> Tensor:
        """The loss, a scalar in cost units, between samples (n, k) and data (m, k), or between their features."""
        if math.isinf(self.eps):
            return sinkdiv.mmd(samples, data, kernel="energy")
        options: dict[str, Any] = {
            "eps": self.eps, "cost": self._cost(samples.shape[1]), "value": self.value, "derivative": self.derivative,
            "iterations": self.iterations, "tol": self.tol, "max_passes": self.max_passes,
        }  # fmt: skip
        return (sinkdiv.sinkhorn_divergence if self.debiased else sinkdiv.transport_cost)(samples, data, **options)

    def _cost(self, dimension: int) -> Any:
        name = "euclidean" if self.cost == LEARNED else self.cost
        if self.derivative != "unrolled" or dimension <= LOW_DIMENSION:
            return name
        # A streamed cost is formed anew in each iteration, which costs most of the time where points have many
        # coordinates; a batch's matrix fits into memory.
        return lambda x, y: COSTS[name].smooth_matrix(x[None], y[None])[0]
