"""The same functions as modules: options are given once, samples at each call."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sinkdiv.costs import find_cost
from sinkdiv.divergence import sinkhorn_divergence
from sinkdiv.mmd import mmd
from sinkdiv.settings import Length, Settings, check_value
from sinkdiv.transport import transport_cost


class _TransportLoss(nn.Module):
    """Options of a transport loss, checked when the module is made."""

    def __init__(
        self,
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
    ) -> None:
        super().__init__()
        check_value(value, derivative)
        solving: dict[str, Any] = {
            "blur": blur,
            "eps": eps,
            "reach": reach,
            "rho": rho,
            "tol": tol,
            "max_passes": max_passes,
        }
        Settings.check(find_cost(cost), **solving, progress=False, callback=None)
        self.options: dict[str, Any] = {**solving, "cost": cost, "value": value, "derivative": derivative}

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={option!r}" for name, option in self.options.items() if option is not None)


class SinkhornDivergence(_TransportLoss):
    """`sinkdiv.sinkhorn_divergence` as a module: ``forward(x, y, a=None, b=None)``."""

    def forward(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        return sinkhorn_divergence(x, y, a, b, **self.options)


class TransportCost(_TransportLoss):
    """`sinkdiv.transport_cost` as a module: ``forward(x, y, a=None, b=None)``."""

    def forward(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        return transport_cost(x, y, a, b, **self.options)


class MMD(nn.Module):
    """`sinkdiv.mmd` as a module: ``forward(x, y, a=None, b=None)``."""

    def __init__(self, *, kernel: str = "energy", blur: float | None = None) -> None:
        super().__init__()
        self.kernel, self.blur = kernel, blur

    def forward(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        return mmd(x, y, a, b, kernel=self.kernel, blur=self.blur)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel!r}" + ("" if self.blur is None else f", blur={self.blur!r}")
