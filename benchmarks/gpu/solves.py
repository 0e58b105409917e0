"""Whole solves on a GPU at an accuracy that is measured alike for all, training steps, and waiting for the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

import sinkdiv
from benchmarks.frame.methods import Answer
from benchmarks.frame.rows import Row, attempted
from benchmarks.frame.workloads import Workload, cubes, gaussians
from benchmarks.gpu.book import Context
from benchmarks.gpu.device import Device
from benchmarks.gpu.peers import TOL, Peer, peers, quietly
from sinkdiv.costs import COSTS
from sinkdiv.kernels import reference

SQUARED = COSTS["sqeuclidean"]
#: Rows and columns on which large problems are judged.
JUDGED = 2048
#: Tolerances of references, in float64 and in float32.
EXACT_TOL, FLOAT32_TOL = 1e-8, 1e-5
#: Parts of the time that is left which the reference of a table, and one of its methods, may take.
REFERENCE_SHARE, PEER_SHARE = 0.35, 0.2
#: Coordinates of pairs above which the interval's passes in float64 would take most of the time.
MOST_CERTIFIED = 1e12
#: Passes of a step that is captured into a graph.
GRAPH_PASSES = 20


@dataclass(frozen=True)
class Reference:
    """A value, its gradient in some of x, and how they were come by."""

    value: float
    rows: Tensor
    gradient: Tensor
    kind: str
    marginal_error: float

    def errors(self, answer: Answer) -> dict[str, float]:
        """Relative errors, the gradient's in L2 over the rows."""
        found = {"value": abs(float(answer.value) / self.value - 1)}
        if answer.gradient is not None:
            difference = answer.gradient[self.rows].double() - self.gradient
            found["gradient"] = float(difference.norm() / self.gradient.norm())
        return found


def marginal_error(workload: Workload, f: Tensor, g: Tensor) -> float:
    """Σ|P1 − a| + Σ|Pᵀ1 − b| in float64; of large problems estimated from some rows and columns."""
    x, y = workload.x[None].double(), workload.y[None].double()
    f, g, eps = f.detach().double()[None], g.detach().double()[None], x.new_full((1, 1), 2 * workload.blur**2)
    total = 0.0
    for own, other, potential, sent in ((x, y, f, g), (y, x, g, f)):
        some = judged(own.shape[1], own.device)
        h = sent / eps - math.log(other.shape[1])
        raw = reference.PointReductions(own[:, some], other, SQUARED).softmin(h, eps)
        total += float(((potential[:, some] - raw) / eps).expm1().abs().mean())
    return total


def judged(n: int, device: torch.device) -> Tensor:
    """All of n rows, or some, drawn at random."""
    if n <= JUDGED:
        return torch.arange(n, device=device)
    return torch.randperm(n, generator=torch.Generator().manual_seed(2))[:JUDGED].sort().values.to(device)


def referred(workload: Workload, exact_points: int, seconds: float) -> Reference:
    """In float64 to 1e-8; of large problems in float32 to 1e-5, with the gradient of some rows in float64.

    Whichever, the marginal error that was reached is measured apart from the library's kernels.
    """
    n = workload.x.shape[0]
    dtype, tol = (torch.float64, EXACT_TOL) if n <= exact_points else (torch.float32, FLOAT32_TOL)
    x, y = workload.x.to(dtype), workload.y.to(dtype)
    ends = time.monotonic() + seconds
    solver = sinkdiv.Auto(max_passes=20_000, callback=lambda _: time.monotonic() > ends)
    solved = quietly(lambda: sinkdiv.solve_divergence(x, y, blur=workload.blur, tol=tol, solver=solver))
    rows = judged(n, x.device)
    eps = x.new_full((1, 1), 2 * workload.blur**2).double()
    parts = []
    for points, potential in ((y, solved.ab.g), (x, solved.aa.g)):
        wide, h = points[None].double(), potential.double()[None] / eps - math.log(len(points))
        pairs = reference.PointReductions(x[None, rows].double(), wide, SQUARED)
        u = pairs.softmin(h, eps) / eps - math.log(n)
        parts.append(pairs.plan_gradient(u, h, eps)[0])
    kind = f"{'float64' if dtype == torch.float64 else 'float32, gradient in float64'}, tol {tol:.0e}"
    error = marginal_error(workload, solved.ab.f, solved.ab.g)
    return Reference(float(solved.value), rows, parts[0] - parts[1], kind, error)


# Section "solves".


def solves(context: Context) -> Iterator[Row]:
    """A row for each workload and method."""
    for kind, d, n in context.sizes.solves:
        workload = on_device(cubes(n, d=d) if kind == "cubes" else gaussians(n, d=d, blur=blur_in(d)), context)
        head: Row = {"table": workload.title}
        exact, row = reference_row(context, workload)
        yield head | row
        if exact is None:
            continue
        for peer in peers():
            yield attempted(
                head | {"method": peer.name},
                lambda peer=peer, workload=workload, exact=exact: raced(context, peer, workload, exact),
            )


def reference_row(context: Context, workload: Workload) -> tuple[Reference | None, Row]:
    made: list[Reference] = []

    def make() -> Row:
        made.append(referred(workload, context.sizes.exact_points, REFERENCE_SHARE * max(0.0, context.left())))
        return {"reference": made[0].kind, "marginal_error": made[0].marginal_error}

    row = attempted({"method": "reference"}, make)
    return (made[0] if made else None), row


def blur_in(d: int) -> float:
    """In many dimensions a larger one: typical distances grow like √d."""
    return 0.5 if d <= 64 else 2.0


def on_device(workload: Workload, context: Context) -> Workload:
    x, y = (points.to(context.device.torch) for points in (workload.x, workload.y))
    return Workload(workload.title, x, y, workload.blur)


def raced(context: Context, peer: Peer, workload: Workload, exact: Reference) -> Row:
    """The least effort whose marginal error meets the tolerance, its time and its errors."""
    if note := peer.missing(workload):
        return {"note": note}
    ends = time.monotonic() + PEER_SHARE * max(0.0, context.left())
    found = least_effort(context.device, peer, workload, ends)
    # Three problems and a gradient; once for the answer, once to warm up, once to be timed.
    needed, left = 4 * found["potentials_s"], ends - time.monotonic()
    if 3 * needed > left and not peer.ours:
        return found | {"note": "value and gradient not run: there was no time"}
    prepared, answers = peer.prepare(workload, found["effort"]), []

    def solve() -> None:
        answers[:] = [quietly(prepared.run)]

    found["peak_bytes"] = context.device.peak_bytes(solve)
    found |= context.device.timed(solve, most=max(1, min(5, int(left / max(needed, 1e-3)) - 2))) | {
        "first_s": found["first_s"], "errors": exact.errors(answers[0]),
    }  # fmt: skip
    if found["marginal_error"] > TOL:
        found["note"] = "less accurate than asked: there was no time for more, or there is no more"
    return found | (certificate(workload, exact, peer.solver) if peer.solver else {})


def least_effort(device: Device, peer: Peer, workload: Workload, ends: float) -> Row:
    """The least effort that meets the tolerance, or the most for which there is time."""
    found: Row = {}
    failed: Any = None
    for effort in peer.settings:
        # The next effort takes some four times as long as the last one, twice.
        if found and 8 * found["potentials_s"] > ends - time.monotonic():
            return found
        found = tried(device, peer, workload, effort) | ({"first_s": found["first_s"]} if found else {})
        if found["marginal_error"] <= TOL:
            break
        failed = effort
    # Numbers of iterations are then halved, in their logarithms, until they are known to a fifth.
    while isinstance(failed, int) and found["effort"] > 1.2 * failed and found["marginal_error"] <= TOL:
        middle = round(math.sqrt(failed * found["effort"]))
        if middle in (failed, found["effort"]) or 2 * found["potentials_s"] > ends - time.monotonic():
            break
        between = tried(device, peer, workload, middle) | {"first_s": found["first_s"]}
        found, failed = (between, failed) if between["marginal_error"] <= TOL else (found, middle)
    return found


def tried(device: Device, peer: Peer, workload: Workload, effort: Any) -> Row:
    """Potentials once, with whatever is compiled, and once more, to be judged."""
    first = device.seconds(lambda: quietly(lambda: peer.potentials(workload, effort)))
    kept: list[Any] = []
    again = device.seconds(lambda: kept.append(quietly(lambda: peer.potentials(workload, effort))))
    error = marginal_error(workload, *kept[0])
    return {"effort": effort, "first_s": first, "potentials_s": again, "marginal_error": error}


def certificate(workload: Workload, exact: Reference, solver: sinkdiv.Auto) -> Row:
    """What our own solve says of itself, and whether its interval holds the reference."""
    solved = quietly(
        lambda: sinkdiv.solve_divergence(workload.x, workload.y, blur=workload.blur, tol=TOL, solver=solver)
    )
    terms = {"cross": solved.ab, "self x": solved.aa, "self y": solved.bb}
    said = {"converged": bool(solved.converged), "passes": {name: int(one.passes) for name, one in terms.items()}}
    if workload.pairs * workload.x.shape[-1] > MOST_CERTIFIED:
        return {"certificate": said}
    lower, upper = (float(end) for end in solved.bounds)
    said |= {"lower": lower, "upper": upper, "holds_reference": lower <= exact.value <= upper}
    return {"certificate": said}


# Section "steps".


def steps(context: Context) -> Iterator[Row]:
    """A loss and its gradient at the sizes of mini-batches, as they are called in training."""
    for batch, n, d, blur in context.sizes.steps:
        source = torch.Generator().manual_seed(0)
        shape = (n, d) if batch == 1 else (batch, n, d)
        x, y = (torch.randn(*shape, generator=source) / d**0.5 for _ in range(2))
        workload = Workload("", x.to(context.device.torch), y.to(context.device.torch), blur)
        head: Row = {"table": f"{f'{batch} times ' if batch > 1 else ''}{n} × {n} points, d = {d}, blur {blur:g}"}
        for name, make in STEPS.items():
            yield attempted(
                head | {"method": name}, lambda make=make, workload=workload: stepped(context, make, workload)
            )


def stepped(context: Context, make: Callable[[Workload], Callable[[], Any] | str], workload: Workload) -> Row:
    call = make(workload)
    if isinstance(call, str):
        return {"note": call}
    return context.device.timed(call)


def step_of(loss: Callable[[Tensor], Tensor], workload: Workload) -> Callable[[], Any]:
    x = workload.x.clone().requires_grad_()
    return lambda: torch.autograd.grad(quietly(lambda: loss(x)).sum(), x)


def our_step(workload: Workload) -> Callable[[], Any]:
    return step_of(lambda x: sinkdiv.sinkhorn_divergence(x, workload.y, blur=workload.blur), workload)


def our_tf32_step(workload: Workload) -> Callable[[], Any]:
    options: dict[str, Any] = {"blur": workload.blur, "solver": sinkdiv.Auto(precision="tf32")}
    return step_of(lambda x: sinkdiv.sinkhorn_divergence(x, workload.y, **options), workload)


def untested_step(workload: Workload) -> Callable[[], Any]:
    """A fixed number of passes, without any test."""
    options: dict[str, Any] = {"blur": workload.blur, "tol": None, "solver": sinkdiv.Auto(max_passes=GRAPH_PASSES)}
    return step_of(lambda x: sinkdiv.sinkhorn_divergence(x, workload.y, **options), workload)


def graph_step(workload: Workload) -> Callable[[], Any] | str:
    """The same, captured into a CUDA graph once and replayed."""
    if not workload.x.is_cuda:
        return "not available: no GPU"
    step, stream = untested_step(workload), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def geomloss_step(workload: Workload) -> Callable[[], Any] | str:
    if find_spec("geomloss") is None:
        return "not installed"
    import geomloss

    loss = geomloss.SamplesLoss("sinkhorn", p=2, blur=workload.blur, scaling=0.5, backend="tensorized")
    return step_of(lambda x: 2 * loss(x, workload.y), workload)


STEPS: dict[str, Callable[[Workload], Callable[[], Any] | str]] = {
    "sinkdiv, tol 1e-3": our_step,
    "sinkdiv, tol 1e-3, tf32": our_tf32_step,
    f"sinkdiv, {GRAPH_PASSES} passes, untested": untested_step,
    f"sinkdiv, {GRAPH_PASSES} passes, as a CUDA graph": graph_step,
    "GeomLoss tensorized, scaling .5": geomloss_step,
}


# Section "waits".


def waits(context: Context) -> Iterator[Row]:
    """How often the host waits for the device in a value and its gradient."""
    counts = (128, 10_000) if context.device.is_gpu else (16,)
    for n in counts:
        workload = on_device(cubes(n), context)
        calls = {"sinkdiv, tol 1e-3": our_step(workload), "sinkdiv, untested": untested_step(workload)}
        for name, call in calls.items():
            head: Row = {"table": workload.title, "method": name}

            def measure(call: Callable[[], Any] = call) -> Row:
                call()
                count, places = context.device.waits(call)
                return {"waits": count, "places": places}

            yield attempted(head, measure)


SECTIONS = {"solves": solves, "steps": steps, "waits": waits}
