"""The same functions as modules: options are given once, samples at each call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from sinkdiv.divergence import Divergence, divergence_values, solve_checked
from sinkdiv.ground import CostLike, find_ground_cost
from sinkdiv.measures import Samples, check_samples
from sinkdiv.mmd import mmd
from sinkdiv.settings import Length, Settings, Wanted
from sinkdiv.solving import solve_samples, transport_value
from sinkdiv.transport import Transport


class _TransportLoss(nn.Module, ABC):
    """Options of a transport loss, checked when the module is made."""

    def __init__(
        self,
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
        precision: str = "high",
        warm_start: bool = False,
    ) -> None:
        """Options as in `sinkdiv.sinkhorn_divergence`, and

        Args:
            warm_start: begin each solve between the two samples where the last call ended. Worth it where a pass is
                long and samples change little from call to call, such as points that flow; the softmin carries the
                potentials over to other points, in any number, so mini-batches may be fresh ones. The result meets the
                same tolerance. Copies and checkpoints of the module begin anew.
        """
        super().__init__()
        self._wanted = Wanted.check(value, derivative, iterations)
        solving: dict[str, Any] = {
            "blur": blur,
            "eps": eps,
            "reach": reach,
            "rho": rho,
            "tol": tol,
            "max_passes": max_passes,
            "precision": precision,
        }
        if not isinstance(warm_start, bool):
            raise ValueError(f"warm_start must be True or False, not {warm_start!r}")
        self._settings = Settings.check(find_ground_cost(cost), **solving, progress=False, callback=None)
        self._previous: Transport | None = None
        self.options: dict[str, Any] = {
            **solving, "cost": cost, "value": value, "derivative": derivative, "iterations": iterations,
            "warm_start": warm_start,
        }  # fmt: skip

    def forward(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        return self._value(self._settings.ground.featured(check_samples(x, y, a, b, balanced=self._settings.balanced)))

    @abstractmethod
    def _value(self, samples: Samples) -> Tensor:
        """The value that is wanted between featured samples."""

    def _remember(self, between: Transport) -> None:
        """Keep the transport between the samples, for the next call to start from."""
        if self.options["warm_start"]:
            self._previous = between.detached()

    def extra_repr(self) -> str:
        left_out = {name for name, option in self.options.items() if option is None or option is False} - {"tol"}
        given = {name: option for name, option in self.options.items() if name not in left_out}
        return ", ".join(f"{name}={option!r}" for name, option in given.items())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_previous": None}


class SinkhornDivergence(_TransportLoss):
    """`sinkdiv.sinkhorn_divergence` as a module: ``forward(x, y, a=None, b=None)``."""

    def _value(self, samples: Samples) -> Tensor:
        def solve() -> list[Divergence]:
            (solved,) = solve_checked([samples], self._settings, self._previous)
            self._remember(solved.ab)
            return [solved]

        (value,) = divergence_values([samples], self._settings, self._wanted, solve)
        return value


class TransportCost(_TransportLoss):
    """`sinkdiv.transport_cost` as a module: ``forward(x, y, a=None, b=None)``."""

    def _value(self, samples: Samples) -> Tensor:
        def solve() -> Transport:
            (solved,) = solve_samples([samples], self._settings, self._previous)
            self._remember(solved)
            return solved

        return transport_value(samples, self._settings, self._wanted, solve)


class MMD(nn.Module):
    """`sinkdiv.mmd` as a module: ``forward(x, y, a=None, b=None)``."""

    def __init__(self, *, kernel: str = "energy", blur: float | None = None) -> None:
        super().__init__()
        self.kernel, self.blur = kernel, blur

    def forward(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        return mmd(x, y, a, b, kernel=self.kernel, blur=self.blur)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel!r}" + ("" if self.blur is None else f", blur={self.blur!r}")
