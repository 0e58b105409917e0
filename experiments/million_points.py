"""The Sinkhorn divergence of two clouds of a million points each: value, gradient and certificate (F19 §4).

    python experiments/million_points.py --out experiments/results/million_points
    python experiments/million_points.py --out experiments/results/million_points --points 100000 --device cpu

x is uniform on a cube, y on one that is shifted and smaller; the blur is a twentieth of the side. No matrix is stored:
memory grows with the points, time with their square. One record is written for each number of points and device, then
table.md from all of them; runs whose records are there are not repeated.

The answer is judged by itself, without another method: by the marginal errors of the three problems, by the interval
that contains the value, and by the gradient's sum, which for squared distances is twice the difference of the means.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from resumable import Record, conditions, load, records, work
from torch import Tensor

import sinkdiv
from sinkdiv import kernels
from sinkdiv.generative.files import write_text

BLUR, TOL = 0.05, 1e-3
#: Seconds of a pass over 10¹² pairs on an H100 whose special function units do nothing but exponentials, and the parts
#: of that which kernels may reach: what is expected of a GPU, as long as nobody has measured it.
FLOOR_S, REACHED = 0.26, (0.2, 0.6)


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
    solved = sinkdiv.solve_divergence(x, y, blur=run.blur, tol=run.tol, progress=sys.stderr.isatty())
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


def table(found: list[Record]) -> Iterator[str]:
    yield "# A million points"
    yield ""
    yield f"x uniform on [0, 1]³, y on [.3, 1.1]³, equally many, float32, |x−y|², blur {BLUR:g}, marginal errors at"
    yield f"most {TOL:g}. Seconds are of value and gradient together, and of the interval (in float64) apart. The"
    yield "gradient's error is that of its sum over x, which is twice the difference of the means. Memory is what the"
    yield "process needed beyond the points, on a GPU what was allocated there. Passes: between clouds, within each."
    yield ""
    yield "| n = m | on | seconds | passes | marginal error | value | interval | its s | gradient's error | MB |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for record in sorted(found, key=lambda record: (record["device"], record["points"])):
        passes = ", ".join(str(count) for count in record["passes"].values())
        state = "" if record["converged"] else " **not converged**"
        interval = "[{:.6g}, {:.6g}]".format(*record["bounds"]) if "bounds" in record else "–"
        cells = [
            f"{record['points']:,}", record["gpu"] or record["device"], f"{record['solve_s']:.3g}{state}", passes,
            f"{max(record['marginal_errors'].values()):.1e}", f"{record['value']:.7g}", interval,
            f"{record['bounds_s']:.3g}" if "bounds_s" in record else "–", f"{record['gradient_sum_error']:.1e}",
            f"{record['peak_bytes'] / 1e6:.0f}",
        ]  # fmt: skip
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield from expectations(found)
    yield f"Load before: {load(found)}."
    yield ""
    yield conditions(found)


def expectations(found: list[Record]) -> Iterator[str]:
    """What a million points should take, where that was not measured: passes hardly depend on how many there are."""
    largest = max(found, key=lambda record: record["points"])
    passes = sum(largest["passes"].values()) + 2  # and the two of the gradient
    for device, title in (("cpu", "a CPU like this"), ("cuda", "an H100")):
        measured = [record for record in found if record["device"] == device]
        if any(record["points"] >= 1_000_000 for record in measured):
            continue
        if measured:
            own = max(measured, key=lambda record: record["points"])
            seconds = own["solve_s"] * (1e6 / own["points"]) ** 2
            yield f"Expected of a million points on {title}, not measured: {seconds / 60:.0f} minutes, in proportion to"
            yield f"the pairs from {own['points']:,} points."
        else:
            fast, slow = (passes * FLOOR_S / part for part in reversed(REACHED))
            yield f"Expected of a million points on {title}, not measured: {passes} passes of {FLOOR_S} s each at best,"
            yield f"of which kernels may reach {REACHED[0]:.0%} to {REACHED[1]:.0%}: {fast:.0f} to {slow:.0f} seconds."
        yield ""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--points", type=int, default=1_000_000, help="of each cloud (1000000)")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="(auto: a GPU if there is one)"
    )
    parser.add_argument("--no-interval", dest="interval", action="store_false", help="spare the passes in float64")
    options = parser.parse_args(arguments)
    if options.points < 2:
        parser.error(f"--points must be at least 2, not {options.points}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU here")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    run = Run(options.points, options.device, interval=options.interval)
    status = work([run], options.out, measure)
    if found := records(options.out):
        write_text(options.out / "table.md", "\n".join(table(found)) + "\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
