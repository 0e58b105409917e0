"""The methods of whole solves on a GPU, each with the efforts that it may take.

Conventions: sinkdiv's and FlashSinkhorn's cost is |x−y|², with ε = 2·blur² given to both; GeomLoss's is |x−y|²/2 with
ε = blur², so that its values and potentials are half of ours. Potentials are those of the problem between x and y, in
our units, with P_ij = a_i b_j exp((f_i + g_j − |x_i − y_j|²)/ε).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import sinkdiv
from benchmarks.frame.methods import DENSE_PAIRS, Answer, Method, Prepared
from benchmarks.frame.workloads import Workload
from benchmarks.speed.methods import on_torch

Potentials = tuple[Tensor, Tensor]
TOL = 1e-3
#: Iterations at the target ε, after an annealing where the method has one.
ITERATIONS = (5, 20, 80, 320, 1280, 5120)
SCALINGS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
#: Entries of the tiles that PyTorch holds.
TILE_ENTRIES = 2**27


@dataclass(frozen=True, kw_only=True)
class Peer(Method):
    """A method whose precision grows with its effort, one of its settings, and with its time.

    ``prepare`` (workload, effort) gives an `Answer`, whose gradient is None where a method has no derivatives.
    """

    potentials: Callable[[Workload, Any], Potentials]
    solver: sinkdiv.Auto | None = None
    """Ours; None of other libraries."""
    on_cpu: bool = True

    @property
    def ours(self) -> bool:
        return self.solver is not None

    def missing(self, workload: Workload) -> str:
        """Why it is not run, or nothing."""
        note = self.obstacle(workload.pairs)
        return note or ("" if self.on_cpu or workload.x.is_cuda else "for GPUs")


def differentiated(loss: Callable[[Tensor, Tensor, float, Any], Tensor]) -> Callable[[Workload, Any], Prepared]:
    """Value and gradient of the loss (x, y, blur, effort) of a divergence."""
    return lambda workload, effort: on_torch(lambda x, y, blur: loss(x, y, blur, effort), workload)


def peers() -> list[Peer]:
    """All of them, ours first."""
    ours = [ours_at(precision) for precision in ("high", "tf32")]
    flash = [flash_alternating(True), flash_alternating(False), flash_symmetric(), flash_multiscale()]
    return [*ours, *flash, geomloss("online"), geomloss("multiscale"), geomloss("tensorized"), plain()]


def ours_at(precision: str) -> Peer:
    solver = sinkdiv.Auto(precision=precision)

    def potentials(workload: Workload, tol: float) -> Potentials:
        solved = sinkdiv.solve(workload.x, workload.y, blur=workload.blur, tol=tol, solver=solver)
        return solved.f, solved.g

    def loss(x: Tensor, y: Tensor, blur: float, tol: float) -> Tensor:
        return sinkdiv.sinkhorn_divergence(x, y, blur=blur, tol=tol, solver=solver)

    return Peer(
        name=f"sinkdiv, {precision}", package="sinkdiv", settings=(TOL,), prepare=differentiated(loss),
        potentials=potentials, solver=solver,
    )  # fmt: skip


def annealed(workload: Workload, iterations: int) -> list[float]:
    """Sizes of ε: from the squared extent down by factors of four, then as many at the target."""
    points = torch.cat([workload.x, workload.y])
    extent = float((points.amax(0) - points.amin(0)).square().sum())
    target = 2 * workload.blur**2
    count = max(0, math.ceil(math.log(extent / target, 4)))
    return [extent / 4**k for k in range(count)] + [target] * iterations


def flash(blur: float, **options: Any) -> Any:
    import flash_sinkhorn

    return flash_sinkhorn.SamplesLoss("sinkhorn", blur=math.sqrt(2) * blur, **options)


def flash_symmetric() -> Peer:
    """Averaged updates, along our annealing."""

    def made(x: Tensor, y: Tensor, blur: float, iterations: int, **options: Any) -> Any:
        ladder = annealed(Workload("", x.detach(), y, blur), iterations)
        return flash(blur, eps_list=ladder, **options)(x, y)

    return flash_peer("FlashSinkhorn symmetric, TF32", made)


def flash_alternating(tf32: bool) -> Peer:
    """Alternating updates at the target ε alone: it has no annealing."""

    def made(x: Tensor, y: Tensor, blur: float, iterations: int, **options: Any) -> Any:
        fixed = {"use_epsilon_scaling": False, "eps": 2 * blur**2, "n_iters": iterations, "backend": "alternating"}
        return flash(blur, allow_tf32=tf32, **fixed, **options)(x, y)

    return flash_peer(f"FlashSinkhorn alternating, {'TF32' if tf32 else 'float32'}", made)


def flash_peer(name: str, made: Callable[..., Any]) -> Peer:
    """``made`` (x, y, blur, iterations, …) is the divergence, or the potentials of the problem between x and y."""
    return Peer(
        name=name, package="flash_sinkhorn", settings=ITERATIONS,
        prepare=differentiated(lambda x, y, blur, count: made(x, y, blur, count, debias=True)),
        potentials=lambda workload, count: made(workload.x, workload.y, workload.blur, count, potentials=True),
        on_cpu=False,
    )  # fmt: skip


def flash_multiscale() -> Peer:
    """For points in three dimensions; it has no gradient."""

    def made(workload: Workload, tol: float, **options: Any) -> Any:
        return flash(workload.blur, backend="multiscale", tol=tol, **options)(workload.x, workload.y)

    return Peer(
        name="FlashSinkhorn multiscale, value only", package="flash_sinkhorn", settings=(5e-3, TOL),
        prepare=lambda workload, tol: Prepared(lambda: Answer(made(workload, tol, debias=True), None)),
        potentials=lambda workload, tol: made(workload, tol, potentials=True),
        on_cpu=False,
    )  # fmt: skip


def geomloss(backend: str) -> Peer:
    """A fixed schedule, whose precision grows with the ratio of successive blurs."""

    def made(x: Tensor, y: Tensor, blur: float, scaling: float, **options: Any) -> Any:
        import geomloss

        return geomloss.SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, backend=backend, **options)(x, y)

    def potentials(workload: Workload, scaling: float) -> Potentials:
        f, g = made(workload.x, workload.y, workload.blur, scaling, debias=False, potentials=True)
        return 2 * f.flatten(), 2 * g.flatten()

    dense = backend == "tensorized"
    return Peer(
        name=f"GeomLoss {backend}", package="geomloss" if dense else "pykeops", settings=SCALINGS,
        prepare=differentiated(lambda x, y, blur, scaling: 2 * made(x, y, blur, scaling)),
        potentials=potentials, most_pairs=DENSE_PAIRS if dense else math.inf,
    )  # fmt: skip


def plain() -> Peer:
    """Alternating updates by matrix products and logsumexps of PyTorch, along our annealing."""
    return Peer(
        name="PyTorch, chunked", package="torch", settings=ITERATIONS,
        prepare=lambda workload, iterations: Prepared(lambda: plain_solve(workload, iterations)),
        potentials=plain_potentials,
    )  # fmt: skip


def plain_potentials(workload: Workload, iterations: int) -> Potentials:
    return _alternated(workload.x, workload.y, annealed(workload, iterations))


def plain_solve(workload: Workload, iterations: int) -> Answer:
    """Three problems, and the envelope gradient 2 a (T_aa(x) − T_ab(x)) by barycentric maps T."""
    ladder = annealed(workload, iterations)
    x, y, eps = workload.x, workload.y, ladder[-1]
    values, maps = [], []
    for left, right in ((x, y), (x, x), (y, y)):
        f, g = _alternated(left, right, ladder)
        values.append(f.mean() + g.mean())
        if left is x:
            scores = _scores(x, right, g, eps)
            maps.append(torch.cat([part.softmax(-1) @ right for part in scores]))
    return Answer(values[0] - (values[1] + values[2]) / 2, 2 / len(x) * (maps[1] - maps[0]))


def _alternated(x: Tensor, y: Tensor, ladder: list[float]) -> Potentials:
    g = y.new_zeros(len(y))
    f = x.new_zeros(len(x))
    for eps in ladder:
        f = _softmin(x, y, g, eps)
        g = _softmin(y, x, f, eps)
    return f, g


def _softmin(x: Tensor, y: Tensor, g: Tensor, eps: float) -> Tensor:
    sums = torch.cat([part.logsumexp(-1) for part in _scores(x, y, g, eps)])
    return x.square().sum(-1) - eps * (sums - math.log(len(y)))


def _scores(x: Tensor, y: Tensor, g: Tensor, eps: float) -> Any:
    """(g_j − |x_i − y_j|² + |x_i|²)/ε, some rows at a time."""
    columns, transposed = (g - y.square().sum(-1)) / eps, y.mT
    return (torch.addmm(columns, rows, transposed, alpha=2 / eps) for rows in x.split(max(1, TILE_ENTRIES // len(y))))


def quietly(call: Callable[[], Any]) -> Any:
    """Without warnings about convergence: errors are measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()
