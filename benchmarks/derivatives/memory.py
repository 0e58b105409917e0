"""Peak memory of the sharp value's gradient, measured in a process of its own: prints one line of JSON. Linux only.

python -m benchmarks.derivatives.memory implicit 3000 --limit 12
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

import sinkdiv
from benchmarks.frame.processes import report_peak
from benchmarks.frame.rows import Row
from benchmarks.frame.workloads import cubes

ITERATIONS = 10


def implicit(x: Tensor, y: Tensor, blur: float) -> Tensor:
    return sinkdiv.transport_cost(x, y, blur=blur, value="sharp")


def unrolled(x: Tensor, y: Tensor, blur: float) -> Tensor:
    return sinkdiv.transport_cost(x, y, blur=blur, value="sharp", solver=sinkdiv.Unrolled(iterations=ITERATIONS))


def pot(x: Tensor, y: Tensor, blur: float) -> Tensor:
    """POT's iteration in logarithms, on autograd's tape."""
    import ot

    a, b = (torch.full((len(points),), 1 / len(points)) for points in (x, y))
    C = ot.dist(x, y)
    plan = ot.sinkhorn(a, b, C, 2 * blur**2, "sinkhorn_log", numItermax=ITERATIONS, stopThr=0.0, warn=False)
    return (plan * C).sum()


def loop(x: Tensor, y: Tensor, blur: float) -> Tensor:
    """The iteration as anyone would write it in PyTorch, on autograd's tape."""
    eps = 2 * blur**2
    C = torch.cdist(x, y).square()
    f, g = torch.zeros(len(x)), torch.zeros(len(y))
    log_a, log_b = (-torch.tensor(len(points)).log() for points in (x, y))
    for _ in range(ITERATIONS):
        f = -eps * torch.logsumexp(log_b + (g - C) / eps, 1)
        g = -eps * torch.logsumexp(log_a + (f[:, None] - C) / eps, 0)
    return (torch.exp(log_a + log_b + (f[:, None] + g - C) / eps) * C).sum()


LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "implicit": implicit, "unrolled": unrolled, "pot": pot, "loop": loop,
}  # fmt: skip


def measure(name: str, n: int) -> Row:
    workload = cubes(n)
    begin = time.perf_counter()
    x = workload.x.requires_grad_()
    value = LOSSES[name](x, workload.y, workload.blur)
    (gradient,) = torch.autograd.grad(value, x)
    return {"seconds": time.perf_counter() - begin, "value": float(value), "gradient_norm": float(gradient.norm())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=LOSSES)
    parser.add_argument("n", type=int)
    parser.add_argument("--limit", type=float, default=12.0, help="GB")
    options = parser.parse_args()
    report_peak(lambda: measure(options.method, 100), lambda: measure(options.method, options.n), options.limit)


if __name__ == "__main__":
    main()
