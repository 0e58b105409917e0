"""One pass: softmin_i = −ε log Σ_j exp(h_j − |x_i − y_j|²/ε) over all pairs, by four roads, beside a floor.

The floor is derived from the fastest matrix product of this machine in the same run: at R flop/s it can issue R/2
fused multiply-adds a second. A pair is charged d of them for its distance and 5 for the polynomial of its exponential;
everything else is taken to be free. So the floor of a pass is pairs · (d + 5) / (R / 2), which nothing reaches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks.frame.clock import quartiles, seconds
from benchmarks.frame.racing import SHORT_S, Limits
from benchmarks.frame.rows import Row
from benchmarks.frame.workloads import Workload
from sinkdiv.costs import find_cost
from sinkdiv.geometry import CloudGeometry

Pass = Callable[[], object]
#: Fused multiply-adds that a pair costs besides those of its distance.
EXPONENTIAL_SLOTS = 5
CHUNK = 1024


@dataclass(frozen=True)
class Inputs:
    """Points x (n, d) and y (m, d), h = log b + g/ε (m,) of a realistic potential g, and ε."""

    x: Tensor
    y: Tensor
    h: Tensor
    eps: float

    @classmethod
    def of(cls, workload: Workload) -> Inputs:
        """h after one exact iteration from zero, so that the scores are those of a solve."""
        x, y = workload.x.double(), workload.y.double()
        eps = 2 * workload.blur**2
        uniform = torch.full((len(x),), -math.log(len(x)), dtype=torch.float64)
        h = -math.log(len(y)) - exact_logsumexp(y, x, uniform, eps)
        return cls(workload.x, workload.y, h.float(), eps)


def exact_logsumexp(x: Tensor, y: Tensor, h: Tensor, eps: float) -> Tensor:
    """log Σ_j exp(h_j − |x_i − y_j|²/ε) in float64, some rows at a time."""
    x, y, h = x.double(), y.double(), h.double()
    return torch.cat([(h - torch.cdist(rows, y).square() / eps).logsumexp(-1) for rows in x.split(CHUNK)])


def ours(inputs: Inputs) -> Pass:
    geometry = CloudGeometry(inputs.x[None], inputs.y[None], find_cost("sqeuclidean"))
    eps, h = torch.full((1, 1), inputs.eps), inputs.h[None]
    return lambda: geometry.softmin(h, eps, 0)[0]


def keops(inputs: Inputs) -> Pass:
    from pykeops.torch import LazyTensor

    x, y = LazyTensor(inputs.x[:, None, :]), LazyTensor(inputs.y[None, :, :])
    scores = LazyTensor(inputs.h[None, :, None]) - ((x - y) ** 2).sum(-1) / inputs.eps
    return lambda: -inputs.eps * scores.logsumexp(dim=1)[:, 0]


def pytorch(inputs: Inputs) -> Pass:
    """|x|² − 2xy + |y|² by one addmm for some rows, then logsumexp."""
    x, y, h, eps = inputs.x, inputs.y, inputs.h, inputs.eps

    def run() -> Tensor:
        columns, transposed = h - y.square().sum(-1) / eps, y.mT
        parts = [
            torch.addmm(columns, rows, transposed, alpha=2 / eps).logsumexp(-1) - rows.square().sum(-1) / eps
            for rows in x.split(CHUNK)
        ]
        return -eps * torch.cat(parts)

    return run


def product(inputs: Inputs) -> Pass:
    """The matrix product x yᵀ alone, some rows at a time: part of every pass in high dimension, and no answer."""
    x, transposed = inputs.x, inputs.y.mT
    buffer = torch.empty(CHUNK, len(inputs.y))

    def run() -> Tensor:
        for rows in x.split(CHUNK):
            torch.mm(rows, transposed, out=buffer[: len(rows)])
        return buffer

    return run


ROADS: dict[str, tuple[str, Callable[[Inputs], Pass]]] = {
    "sinkdiv": ("sinkdiv", ours),
    "KeOps": ("pykeops", keops),
    "PyTorch, addmm and logsumexp in chunks": ("torch", pytorch),
    "(matrix product x yᵀ alone)": ("torch", product),
}


def of_every_kind(inputs: Inputs) -> dict[str, Pass]:
    """What a solve, a derivative and a derivative of a derivative ask of a plan whose row sums are right."""
    x, y, h, eps = inputs.x[None], inputs.y[None], inputs.h[None], torch.full((1, 1), inputs.eps)
    geometry = CloudGeometry(x, y, find_cost("sqeuclidean"))
    u = geometry.softmin(h, eps, 0) / eps - math.log(len(inputs.x))
    generator = torch.Generator().manual_seed(1)
    s, t, dx, dy = (torch.randn(like.shape, generator=generator) for like in (u, h, x, y))
    rest = torch.zeros_like(dy)
    return {
        "softmin": lambda: geometry.softmin(h, eps, 0),
        "marginals": lambda: geometry.marginals(u, h, eps),
        "weighted_marginals": lambda: geometry.weighted_marginals(u, h, eps, s, t),
        "tangent_marginals": lambda: geometry.tangent_marginals(u, h, eps, dx, dy),
        "tangent_marginals, columns at rest": lambda: geometry.tangent_marginals(u, h, eps, dx, rest),
        "plan_gradient": lambda: geometry.gradients(u, h, eps, (True, False)),
        "weighted_gradient": lambda: geometry.weighted_gradients(u, h, eps, s, t, (True, False)),
        "gradient_tangent": lambda: geometry.gradient_tangent(u, h, eps, s, t, dx, dy, 0),
        "gradient_tangent, columns at rest": lambda: geometry.gradient_tangent(u, h, eps, s, t, dx, rest, 0),
    }


def compare_kinds(workload: Workload, limits: Limits) -> list[Row]:
    """One row for each kind of pass, taken in turns: seconds, and pairs per second."""
    calls = of_every_kind(Inputs.of(workload))
    rows = [{"method": name, "seconds": []} for name in calls]
    for turn in range(limits.repetitions + 1):
        for row in rows:
            time = seconds(calls[row["method"]])
            row["seconds"] += [time] if turn else []  # the first warms up
    return [row | {"pairs_per_s": workload.pairs / quartiles(row["seconds"])[1]} for row in rows]


def product_rate(n: int, repetitions: int = 10) -> float:
    """The best rate of a float32 product of n × n matrices on this machine, in flop/s."""
    left, right = torch.rand(n, n), torch.rand(n, n)
    torch.mm(left, right)
    return 2 * n**3 / min(seconds(lambda: torch.mm(left, right)) for _ in range(repetitions))


def floor_seconds(workload: Workload, rate: float) -> float:
    return workload.pairs * (workload.x.shape[-1] + EXPONENTIAL_SLOTS) / (rate / 2)


def compare(workload: Workload, limits: Limits, rate: float) -> list[Row]:
    """One row for each road: seconds, pairs per second, and the largest error of the logsumexp on some rows."""
    inputs = Inputs.of(workload)
    some = torch.arange(0, len(inputs.x), max(1, len(inputs.x) // 500))
    exact = exact_logsumexp(inputs.x[some], inputs.y, inputs.h, inputs.eps)
    rows, calls = [], {}
    for name, (package, road) in ROADS.items():
        rows.append({"method": name, "seconds": [], "note": "" if find_spec(package) else "not installed"})
        if not rows[-1]["note"]:
            calls[name] = road(inputs)
            result = calls[name]()  # compiles, and is judged
            if road is not product:
                rows[-1]["error"] = float((result[some].double() / -inputs.eps - exact).abs().max())
    for _ in range(limits.repetitions):
        for row in rows:
            times = row["seconds"]
            if row["method"] in calls and (not times or sum(times) + times[0] < limits.method):
                if times and times[0] < SHORT_S:
                    calls[row["method"]]()
                times.append(seconds(calls[row["method"]]))
    for row in rows:
        if row["seconds"]:
            median = quartiles(row["seconds"])[1]
            row |= {"pairs_per_s": workload.pairs / median, "of_floor": floor_seconds(workload, rate) / median}
    return rows
