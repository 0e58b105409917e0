"""The same functions as modules: options are given once, samples at each call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Unpack

from torch import Tensor, nn

from sinkdiv.declarations import documents_options, shows_options, with_text
from sinkdiv.evaluation import DIVERGENCE, TRANSPORT, Loss
from sinkdiv.measures import SAMPLES, Clouds
from sinkdiv.mmd import KernelOptions, kernel_of, mmd_values
from sinkdiv.options import LossOptions, settled
from sinkdiv.solvers.choice import Earlier, IterativeSolver


class _OptionsModule(nn.Module):
    """A module without state, which shows the options it was given."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self._options = options  # in a dict, so that a learned cost stays the caller's module

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={option!r}" for name, option in self._options.items())


class _TransportLoss(_OptionsModule):
    """A loss whose options are checked when it is made, and what a warm start remembers of its last call."""

    _loss: ClassVar[Loss]

    @shows_options
    def __init__(self, **options: Unpack[LossOptions]) -> None:
        super().__init__(dict(options))
        self._settings = settled(type(self).__name__, LossOptions, options)
        self._earlier: Sequence[Earlier] = ()
        solver = self._settings.solver
        self._remembers = isinstance(solver, IterativeSolver) and solver.warm_start is not False
        if isinstance(solver, IterativeSolver) and not isinstance(solver.warm_start, bool):
            given = solver.warm_start  # the first call begins there; copies of the module, which begin anew, do not
            self._earlier = [given] if isinstance(given, Earlier) else list(given)
            solver = replace(solver, warm_start=True)
            self._settings = replace(self._settings, solver=solver)
            self._options["solver"] = solver

    @with_text(samples=SAMPLES)
    def forward(self, x: Clouds, y: Clouds, a: Clouds | None = None, b: Clouds | None = None) -> Tensor:
        """The value between two weighted samples, 0-d, or (B,) for batches and lists, in cost units.

        Args:
            {samples}

        Raises:
            ValueError: naming the argument that is wrong, before any work.
        """
        value, solved = self._loss(x, y, a, b, self._settings, self._starts)
        if self._remembers:
            self._earlier = [one.detached() for one in solved]
        return value

    def _starts(self, count: int) -> Sequence[Earlier]:
        """What the solves between so many pairs of samples start from; () if the last call had another number."""
        return self._earlier if len(self._earlier) == count else ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_earlier": ()}


@documents_options(LossOptions)
class SinkhornDivergence(_TransportLoss):
    """`sinkdiv.sinkhorn_divergence` as a module: the Sinkhorn divergence S_ε between two weighted samples.

    It has no parameters: a learned cost stays the caller's module.

    Args:
        {options}

    Raises:
        ValueError: naming the option that is wrong, when the module is made.
        NotImplementedError: if ``value`` and ``derivative`` do not go together, naming what does.

    Example:
        >>> criterion = sinkdiv.SinkhornDivergence(blur=0.5, solver=sinkdiv.Auto(warm_start=True))
        >>> x, y = torch.randn(500, 3, requires_grad=True), torch.randn(400, 3) + 1
        >>> criterion(x, y).backward()
        >>> x.grad.shape
        torch.Size([500, 3])
    """

    _loss = DIVERGENCE


@documents_options(LossOptions)
class TransportCost(_TransportLoss):
    """`sinkdiv.transport_cost` as a module: OT_ε between two weighted samples, the cost itself, not debiased.

    It has no parameters: a learned cost stays the caller's module.

    Args:
        {options}

    Raises:
        ValueError: naming the option that is wrong, when the module is made.
        NotImplementedError: if ``value`` and ``derivative`` do not go together, naming what does.

    Example:
        >>> criterion = sinkdiv.TransportCost(blur=0.5, value="sharp")
        >>> cost = criterion(torch.randn(500, 3), torch.randn(400, 3) + 1)
    """

    _loss = TRANSPORT


@documents_options(KernelOptions)
class MMD(_OptionsModule):
    """`sinkdiv.mmd` as a module: half the squared maximum mean discrepancy between two weighted samples.

    Args:
        {options}

    Raises:
        ValueError: naming the option that is wrong, when the module is made.

    Example:
        >>> criterion = sinkdiv.MMD(kernel="gaussian", blur=0.5)
        >>> value = criterion(torch.randn(500, 3), torch.randn(400, 3) + 1)
    """

    @shows_options
    def __init__(self, **options: Unpack[KernelOptions]) -> None:
        super().__init__(dict(options))
        self._kernel = kernel_of(type(self).__name__, options)

    @with_text(samples=SAMPLES)
    def forward(self, x: Clouds, y: Clouds, a: Clouds | None = None, b: Clouds | None = None) -> Tensor:
        """½‖α−β‖²_k, 0-d, or (B,) for batches and lists.

        Args:
            {samples}

        Raises:
            ValueError: naming the argument that is wrong, before any work.
        """
        return mmd_values(x, y, a, b, self._kernel)
