"""The functions that a user calls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Unpack, overload

from torch import Tensor

from sinkdiv.debiased import solve_debiased
from sinkdiv.declarations import shows_options, with_text
from sinkdiv.divergence import Divergence
from sinkdiv.evaluation import DIVERGENCE, TRANSPORT, given_starts
from sinkdiv.measures import SAMPLES, Clouds, check_matrix, is_list_of_clouds
from sinkdiv.options import LossOptions, MatrixOptions, TransportOptions, settled
from sinkdiv.solving import check_eps, checked_samples, solve_posed, solve_samples, warn_unless_converged
from sinkdiv.transport import Transport


@overload
def solve(
    x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, **options: Unpack[TransportOptions]
) -> Transport: ...


@overload
def solve(
    x: Sequence[Tensor],
    y: Sequence[Tensor],
    a: Sequence[Tensor] | None = None,
    b: Sequence[Tensor] | None = None,
    **options: Unpack[TransportOptions],
) -> list[Transport]: ...


@with_text(samples=SAMPLES)
@shows_options
def solve(
    x: Clouds, y: Clouds, a: Clouds | None = None, b: Clouds | None = None, **options: Unpack[TransportOptions]
) -> Transport | list[Transport]:
    """Solve the entropic transport problem between two weighted samples.

        OT_ε(a,b) = min over P1=a, Pᵀ1=b of <P,C> + ε KL(P|abᵀ)

    Args:
        {samples}
        {options}

    Returns:
        A `Transport`, or for lists of clouds a list of them. If a problem did not converge, a `ConvergenceWarning` was
        issued and its status says why.

    Raises:
        ValueError: naming the argument that is wrong, before any work.

    Example:
        >>> x, y = torch.rand(500, 3), torch.rand(400, 3)
        >>> t = sinkdiv.solve(x, y, blur=0.1)
        >>> t.barycentric_map().shape
        torch.Size([500, 3])
    """
    settings = settled("solve", TransportOptions, options)
    samples = checked_samples(x, y, a, b, settings)
    solved = solve_samples(samples, settings, given_starts(settings, len(samples)))
    warn_unless_converged(solved)
    transports = [Transport(one) for one in solved]
    return transports if is_list_of_clouds(x) else transports[0]


@overload
def solve_divergence(
    x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, **options: Unpack[TransportOptions]
) -> Divergence: ...


@overload
def solve_divergence(
    x: Sequence[Tensor],
    y: Sequence[Tensor],
    a: Sequence[Tensor] | None = None,
    b: Sequence[Tensor] | None = None,
    **options: Unpack[TransportOptions],
) -> list[Divergence]: ...


@with_text(samples=SAMPLES)
@shows_options
def solve_divergence(
    x: Clouds, y: Clouds, a: Clouds | None = None, b: Clouds | None = None, **options: Unpack[TransportOptions]
) -> Divergence | list[Divergence]:
    """Solve the three problems of a Sinkhorn divergence and keep them, with their certificates.

        S_ε(α,β) = OT_ε(α,β) − ½ OT_ε(α,α) − ½ OT_ε(β,β)  [+ ε/2 (m_α − m_β)² if the marginals are soft]

    Args:
        {samples}
        {options}

    Returns:
        A `Divergence`, or for lists of clouds a list of them. If a problem did not converge, a `ConvergenceWarning` was
        issued and its status says why.

    Raises:
        ValueError: naming the argument that is wrong, before any work.

    Example:
        >>> d = sinkdiv.solve_divergence(torch.rand(500, 3), torch.rand(400, 3), blur=0.1)
        >>> lower, upper = d.bounds
        >>> bool(lower <= upper)
        True
    """
    settings = settled("solve_divergence", TransportOptions, options)
    samples = checked_samples(x, y, a, b, settings)
    solved = solve_debiased(samples, settings, given_starts(settings, len(samples)))
    warn_unless_converged([part for one in solved for part in one.parts])
    divergences = [Divergence(one) for one in solved]
    return divergences if is_list_of_clouds(x) else divergences[0]


@shows_options
def solve_matrix(
    C: Tensor, a: Tensor | None = None, b: Tensor | None = None, **options: Unpack[MatrixOptions]
) -> Transport:
    """Solve the entropic transport problem of an explicit cost matrix.

    Memory: a copy of C, so that C may change afterwards, and while the solve lasts as much again for a stored kernel.

    Args:
        C: costs, (n, m) or a batch (B, n, m). +inf forbids a pair: the plan is zero there.
        a: weights of the rows, (n,) or (B, n); uniform of mass 1 if omitted.
        b: weights of the columns, (m,) or (B, m); uniform of mass 1 if omitted.
        {options}

    Returns:
        A `Transport`. If it did not converge, a `ConvergenceWarning` was issued and its status says why.

    Raises:
        ValueError: naming the argument that is wrong, before any work.

    Example:
        >>> C = torch.rand(50, 60, requires_grad=True)
        >>> t = sinkdiv.solve_matrix(C, eps=0.05)
        >>> t.value.backward()  # the gradient in C is the plan
        >>> torch.allclose(C.grad, t.plan())
        True
    """
    settings = settled("solve_matrix", MatrixOptions, options)
    matrix = check_matrix(C, a, b, balanced=settings.balanced)
    check_eps(settings, [matrix], listed=False)
    solved = solve_posed([matrix], settings, given_starts(settings, 1))
    warn_unless_converged(solved)
    return Transport(solved[0])


@with_text(samples=SAMPLES)
@shows_options
def sinkhorn_divergence(
    x: Clouds, y: Clouds, a: Clouds | None = None, b: Clouds | None = None, **options: Unpack[LossOptions]
) -> Tensor:
    """The Sinkhorn divergence S_ε between two weighted samples, as a loss.

        S_ε(α,β) = OT_ε(α,β) − ½ OT_ε(α,α) − ½ OT_ε(β,β)  [+ ε/2 (m_α − m_β)² if the marginals are soft]

    Args:
        {samples}
        {options}

    Returns:
        A 0-d tensor, or (B,) for a batch or for lists, in cost units. Its error is of second order in ``tol``;
        `solve_divergence` gives an interval. Between nearly equal samples it may come out negative by that error.

    Raises:
        ValueError: naming the argument that is wrong, before any work.
        NotImplementedError: if ``value`` and ``derivative`` do not go together, naming what does.

    Example:
        >>> x, y = torch.randn(500, 3, requires_grad=True), torch.randn(400, 3) + 1
        >>> loss = sinkdiv.sinkhorn_divergence(x, y, blur=0.5)
        >>> loss.backward()
        >>> x.grad.shape
        torch.Size([500, 3])
    """
    settings = settled("sinkhorn_divergence", LossOptions, options)
    value, _ = DIVERGENCE(x, y, a, b, settings, partial(given_starts, settings))
    return value


@with_text(samples=SAMPLES)
@shows_options
def transport_cost(
    x: Clouds, y: Clouds, a: Clouds | None = None, b: Clouds | None = None, **options: Unpack[LossOptions]
) -> Tensor:
    """OT_ε between two weighted samples: the cost itself, not debiased (it is not zero for equal samples).

        OT_ε(a,b) = min over P1=a, Pᵀ1=b of <P,C> + ε KL(P|abᵀ)

    Args:
        {samples}
        {options}

    Returns:
        A 0-d tensor, or (B,) for a batch or for lists, in cost units. Its error is of second order in ``tol``; `solve`
        gives an interval.

    Raises:
        ValueError: naming the argument that is wrong, before any work.
        NotImplementedError: if ``value`` and ``derivative`` do not go together, naming what does.

    Example:
        >>> x, y = torch.randn(500, 3), torch.randn(400, 3) + 1
        >>> cost = sinkdiv.transport_cost(x, y, blur=0.5, value="sharp")
    """
    settings = settled("transport_cost", LossOptions, options)
    value, _ = TRANSPORT(x, y, a, b, settings, partial(given_starts, settings))
    return value
