"""Peak memory and time of one pass, measured in a process of its own: prints one line of JSON. Linux only.

python -m benchmarks.speed.memory 100000 --gradient
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.frame.clock import seconds
from benchmarks.frame.processes import report_peak
from benchmarks.frame.rows import Row
from benchmarks.frame.workloads import cubes
from sinkdiv.costs import find_cost
from sinkdiv.geometry import CloudGeometry


def measure(n: int, gradient: bool) -> Row:
    """Seconds of one softmin pass, and of the reduction that gives the gradient in x."""
    workload = cubes(n)
    eps = torch.full((1, 1), 2 * workload.blur**2)
    geometry = CloudGeometry(workload.x[None], workload.y[None], find_cost("sqeuclidean"))
    h = torch.full((1, n), 1 / n).log()
    found: list[torch.Tensor] = []
    result = {"n": n, "softmin_s": seconds(lambda: found.append(geometry.softmin(h, eps, 0)))}
    if gradient:
        u = found[0] / eps + h
        result["gradient_s"] = seconds(lambda: geometry.gradients(u, h, eps, (True, False)))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", type=int)
    parser.add_argument("--gradient", action="store_true", help="also the reduction that gives the gradient in x")
    options = parser.parse_args()
    report_peak(lambda: measure(100, True), lambda: measure(options.n, options.gradient))


if __name__ == "__main__":
    main()
