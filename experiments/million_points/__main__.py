"""The Sinkhorn divergence of two clouds of a million points each: value, gradient and certificate (F19 §4).

    python -m experiments.million_points
    python -m experiments.million_points --points 100000 --device cpu

x is uniform on a cube, y on one that is shifted and smaller; the blur is a twentieth of the side. No matrix is stored:
memory grows with the points, time with their square. One record is written for each number of points and device, then
table.md from all of them; runs whose records are there are not repeated.

The answer is judged by itself, without another method: by the marginal errors of the three problems, by the interval
that contains the value, and by the gradient's sum, which for squared distances is twice the difference of the means.
"""

from __future__ import annotations

import argparse
import functools
import resource
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor

import sinkdiv
from experiments.frame import command
from experiments.frame.runs import Record, carried_out
from experiments.million_points.report import write_report
from sinkdiv import kernels

BLUR, TOL = 0.05, 1e-3


@dataclass(frozen=True)
class Run:
    points: int
    device: str
    blur: float = BLUR
    tol: float = TOL
    seed: int = 0
    interval: bool = True

    @property
    def name(self) -> str:
        return f"{self.points}-points-{self.device}"


def clouds(run: Run) -> tuple[Tensor, Tensor]:
    """x (n, 3) uniform on [0, 1]³, y (n, 3) uniform on [.3, 1.1]³, in float32."""
    generator = torch.Generator().manual_seed(run.seed)
    x, y = (torch.rand(run.points, 3, generator=generator) for _ in range(2))
    return x.to(run.device), (0.3 + 0.8 * y).to(run.device)


def measure(run: Run) -> Record:
    x, y = clouds(run)
    x.requires_grad_()
    before = memory(run)
    begin = time.perf_counter()
    solver = sinkdiv.Auto(progress=sys.stderr.isatty())
    solved = sinkdiv.solve_divergence(x, y, blur=run.blur, tol=run.tol, solver=solver)
    (gradient,) = torch.autograd.grad(solved.value, x)
    found: Record = {
        "value": float(solved.value.detach()),
        "solve_s": time.perf_counter() - begin,
        "peak_bytes": memory(run) - before,
    }
    expected = 2 * (x.detach().double().mean(0) - y.double().mean(0))
    terms = {"between": solved.ab, "within x": solved.aa, "within y": solved.bb}
    found |= {
        "converged": bool(solved.converged),
        "passes": {name: int(one.passes) for name, one in terms.items()},
        "marginal_errors": {name: float(one.marginal_error) for name, one in terms.items()},
        "gradient_norm": float(gradient.double().norm()),
        "gradient_sum_error": float((gradient.double().sum(0) - expected).norm() / expected.norm()),
        "kernel": next((kernel for device, kernel in kernels.describe() if device.startswith(run.device)), ""),
        "gpu": torch.cuda.get_device_name() if run.device == "cuda" else None,
    }
    if run.interval:
        begin = time.perf_counter()
        found["bounds"] = [float(end) for end in solved.bounds]
        found["bounds_s"] = time.perf_counter() - begin
    return found


def memory(run: Run) -> int:
    """The most that was in use so far, in bytes: of the GPU's memory, or of the process."""
    if run.device == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = command.parser(__doc__, "million_points")
    parser.add_argument("--points", type=int, default=1_000_000, help="of each cloud (1000000)")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="(auto: a GPU if there is one)"
    )
    parser.add_argument("--no-interval", dest="interval", action="store_false", help="spare the passes in float64")
    options = command.parsed(parser, arguments, points=2)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU here")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    run = Run(options.points, options.device, interval=options.interval)
    sys.exit(carried_out([run], options.out / "records", measure, functools.partial(write_report, folder=options.out)))


if __name__ == "__main__":
    main()
