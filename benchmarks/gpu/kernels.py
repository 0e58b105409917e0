"""Single kernels on a GPU: their errors against float64, their times beside a floor, and their tiles."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.frame.rows import Row, attempted, failure
from benchmarks.frame.workloads import cubes, gaussians
from benchmarks.gpu.book import Context
from benchmarks.gpu.device import LEAST, Charge, Device, Rates
from benchmarks.speed import passes
from sinkdiv.costs import COSTS, LOW_DIMENSION, Cost
from sinkdiv.kernels import reference

Result = Tensor | tuple[Tensor, ...]
Kernels = dict[str, Callable[[], Result]]
PRECISIONS = ("high", "tf32")
#: What has a way of its own between points and themselves.
SELF_KERNELS = ("softmin", "softmin, near", "softmin, bad guess")
#: Softmins that bring potentials near the solution, of the sizes of ε that lead there.
ANNEALING, STEPS_AT_TARGET = 12, 8
#: How far off a guess of a softmin is, in ε: near the end of a solve, and where it should not be used.
GOOD_GUESS, BAD_GUESS = 0.1, 300.0


@dataclass(frozen=True)
class Vectors:
    """What the kernels are given besides points: shapes as in `sinkdiv.kernels.reference`."""

    u: Tensor
    h: Tensor
    eps: Tensor
    near: Tensor
    far: Tensor
    s: Tensor
    t: Tensor
    dx: Tensor
    dy: Tensor
    v: Tensor

    def to(self, dtype: torch.dtype) -> Vectors:
        return Vectors(*(getattr(self, name).to(dtype) for name in self.__dataclass_fields__))


def vectors(x: Tensor, y: Tensor, cost: Cost, eps: float) -> Vectors:
    """Those of a plan whose marginals are nearly right, in float64, from float32 points x (1, n, d), y (1, m, d)."""
    x, y = x.double(), y.double()
    pairs = reference.PointReductions(x, y, cost)
    log_a, log_b = (x.new_full((1, points.shape[1]), -math.log(points.shape[1])) for points in (x, y))
    start = float(COSTS["sqeuclidean"].matrix(x[:, :1], y).max()) ** (cost.exponent / 2)
    ladder = [max(eps, start * (eps / start) ** (k / ANNEALING)) for k in range(ANNEALING + STEPS_AT_TARGET)]
    g = torch.zeros_like(log_b)
    for step in ladder:
        column = x.new_full((1, 1), step)
        f = pairs.softmin(log_b + g / step, column)
        g = pairs.swapped().softmin(log_a + f / step, column)
    return around(f, log_a + f / eps, log_b + g / eps, x, y, eps)


def around(near: Tensor, u: Tensor, h: Tensor, x: Tensor, y: Tensor, eps: float) -> Vectors:
    """Guesses of the softmin ``near``, and directions, drawn at random; all of them float32 numbers."""
    source = torch.Generator(x.device).manual_seed(1)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=source, device=x.device, dtype=x.dtype)

    column = x.new_full((1, 1), eps)
    noise = normal(near)
    made = Vectors(
        u + GOOD_GUESS * normal(u), h, column, near + GOOD_GUESS * eps * noise, near + BAD_GUESS * eps * noise,
        normal(u), normal(h), normal(x), normal(y), normal(y),
    )  # fmt: skip
    return made.to(torch.float32).to(x.dtype)


def of_points(pairs: Any, v: Vectors) -> Kernels:
    """Every kernel on the pairs of points, `sinkdiv.kernels.triton`'s or the reference's."""
    return of_any(pairs, v) | {
        "gradient": lambda: pairs.plan_gradient(v.u, v.h, v.eps),
        "weighted gradient": lambda: pairs.weighted_gradient(v.u, v.h, v.eps, v.s, v.t),
        "tangent marginals": lambda: pairs.tangent_marginals(v.u, v.h, v.eps, v.dx, v.dy),
        "gradient's tangent": lambda: pairs.gradient_tangent(v.u, v.h, v.eps, v.s, v.t, v.dx, v.dy),
    }


def of_any(pairs: Any, v: Vectors) -> Kernels:
    """Those that a stored matrix has too."""
    a, b = torch.ones_like(v.u) / v.u.shape[1], torch.ones_like(v.h) / v.h.shape[1]
    log_u, log_h, p, q = v.u - a.log(), v.h - b.log(), v.s.abs() / 100, v.t.abs() / 100
    return {
        "softmin": lambda: pairs.softmin(v.h, v.eps),
        "softmin, near": lambda: pairs.softmin(v.h, v.eps, v.near),
        "softmin, bad guess": lambda: pairs.softmin(v.h, v.eps, v.far),
        "c-transform": lambda: ctransform(pairs, v.h * v.eps),
        "marginals": lambda: pairs.marginals(v.u, v.h, v.eps),
        "weighted marginals": lambda: pairs.weighted_marginals(v.u, v.h, v.eps, v.s, v.t),
        "plan cost": lambda: pairs.plan_cost(v.u, v.h, v.eps),
        "primal": lambda: pairs.corrected_primal(a, b, log_u, log_h, v.eps, p, q),
        "product": lambda: pairs.plan_product(v.u, v.h, v.eps, v.v),
    }


def ctransform(pairs: Any, g: Tensor) -> Tensor:
    return pairs.ctransform(g) if hasattr(pairs, "ctransform") else (pairs.costs() - g[:, None]).amin(-1)


def error(name: str, found: Result, exact: Result, eps: float) -> float:
    """Of softmins and c-transforms the largest, in ε; of all else relative to the largest entry. The worse of two."""
    if isinstance(found, tuple) and isinstance(exact, tuple):
        return max(error(name, *both, eps) for both in zip(found, exact, strict=True))
    assert isinstance(found, Tensor)
    assert isinstance(exact, Tensor)
    scale = eps if name.startswith(("softmin", "c-transform")) else float(exact.abs().max())
    return float((found.double() - exact).abs().max()) / scale


# Section "errors".


def errors(context: Context) -> Iterator[Row]:
    """A row for each dimension, cost, precision and blur. Processes share the work, most of which is compiling."""
    sizes, device = context.sizes, str(context.device.torch)
    tasks = [(device, d, name, precision, sizes) for precision, d, name in error_cases(sizes.dimensions)]
    if context.jobs == 1:
        for task in tasks:
            yield from error_rows(task)
        return
    # A process whose device met an error is of no more use.
    with multiprocessing.get_context("spawn").Pool(context.jobs, maxtasksperchild=1) as pool:
        for rows in pool.imap_unordered(error_rows, tasks):
            yield from rows


def error_cases(dimensions: tuple[int, ...]) -> list[tuple[str, int, str]]:
    """(precision, dimension, cost): TF32 only where it makes a difference."""
    low = dimensions[0]
    cases = [("high", d, name) for d in dimensions for name in COSTS] + [("high", low, "matrix")]
    cases += [(precision, d, "self") for d in dimensions for precision in PRECISIONS[: 1 + (d > LOW_DIMENSION)]]
    cases += [("tf32", d, "sqeuclidean") for d in dimensions if d > LOW_DIMENSION]
    return cases + [("float64", d, "sqeuclidean") for d in dimensions[:2]]


def error_rows(task: tuple[str, int, str, str, Any]) -> list[Row]:
    device, d, name, precision, sizes = task
    rows: list[Row] = []
    for blur in sizes.blurs:
        head = {"table": f"precision {precision}", "d": d, "cost": name, "blur": blur}
        try:
            rows.append(head | measured_errors(device, d, name, precision, blur, sizes))
        except Exception as error:  # it is the result
            return [*rows, head | {"note": failure(error)}]
    return rows


def measured_errors(device: str, d: int, name: str, precision: str, blur: float, sizes: Any) -> Row:
    import sinkdiv.kernels.triton.reductions as reductions_module
    from sinkdiv.kernels.triton.reductions import MatrixReductions, PointReductions

    source = torch.Generator(device).manual_seed(d)
    x, y = (torch.randn(1, n, d, generator=source, device=device) / d**0.5 for n in (sizes.rows, sizes.columns))
    y = y + 0.3 / d**0.5
    cost = COSTS.get(name, COSTS["sqeuclidean"])
    if name == "self":
        y = x
    v = vectors(x, y, cost, eps := cost.from_length(blur))
    dtype = torch.float64 if precision == "float64" else torch.float32
    C = cost.matrix(x.double(), y.double())
    if name == "matrix":
        exact = of_any(reference.MatrixReductions(C.float().double()), v)
        found = of_any(MatrixReductions(C.float()), v.to(dtype))
    else:
        exact = of_points(reference.PointReductions(x.double(), y.double(), cost), v)
        left = x.to(dtype)
        right = left if name == "self" else y.to(dtype)
        own = PointReductions(left, right, cost, precision="tf32" if precision == "tf32" else "high")
        found = of_points(own, v.to(dtype))
    if name == "self":
        found = {kernel: call for kernel, call in found.items() if kernel in SELF_KERNELS}
    unit = torch.finfo(dtype).eps / 2 * float(C.max()) / eps
    with mock.patch.object(reductions_module, "SYMMETRIC_POINTS", 0):  # few points, too, in the way of many
        errors = {kernel: error(kernel, found[kernel](), exact[kernel](), eps) for kernel in found}
    return {"unit": unit, "errors": errors}


# Section "times".


def charge(kernel: str, d: int, precision: str) -> Charge:
    """What the kernels of squared distances charge for a pair, at least.

    A distance is d subtractions and d fused multiply-adds, or a matrix product of d (three of float16 halves, or one in
    TF32) and two additions; an exponent one more; each sum an addition; the coordinates of a gradient one each, or a
    matrix product in three TF32 parts, or one.
    """
    low = d <= LOW_DIMENSION
    halves = 0 if low or precision == "tf32" else 3 * 2 * d
    rounded = 2 * d if not low and precision == "tf32" else 0
    products = 0 if low else 2 * d * (3 if precision == "high" else 1)
    operations = 1 + (2 * d if low else 2) + (2 if "marginals" in kernel else 1)
    if kernel.endswith("self"):  # each of its exponentials serves two pairs
        return Charge(0.5, (operations + 2) / 2, halves / 2, rounded / 2)
    exponentials = 0 if kernel == "c-transform" else 1
    if "gradient" in kernel or kernel == "product":
        operations += d if low else 0
        return Charge(exponentials, operations, halves, rounded + products)
    if kernel == "softmin":
        operations += 1
    if kernel == "tangent marginals":
        operations += 3 * d
    return Charge(exponentials, operations, halves, rounded)


def times(context: Context) -> Iterator[Row]:
    """A row for each kernel, dimension, precision and number of points; softmins of most points at the end."""
    sizes = context.sizes
    for n in sizes.points:
        for d in sizes.dimensions:
            for precision in PRECISIONS if d > LOW_DIMENSION else PRECISIONS[:1]:
                yield from timed_kernels(context, n, d, precision)
            yield from timed_peers(context, n, d)
    for d in sizes.dimensions:
        yield from most_timed(context, d)


def most_timed(context: Context, d: int) -> Iterator[Row]:
    """Softmins of most points, if a tenth of the rows says that there is time for them."""
    from sinkdiv.kernels.triton.reductions import PointReductions

    n, device = context.sizes.most_points, context.device
    x, y, blur = clouds(n, d, device)
    part = PointReductions(x[None, : n // 10].contiguous(), y[None], COSTS["sqeuclidean"])
    h, eps = x.new_full((1, n), -math.log(n)), x.new_full((1, 1), 2 * blur**2)
    device.seconds(lambda: part.softmin(h, eps))
    predicted = 10 * device.seconds(lambda: part.softmin(h, eps))
    if 2 * (LEAST + 2) * predicted > context.left():
        note = f"not run: a tenth of the rows says that a pass takes {predicted:.2g} s"
        yield {"table": f"{n:,} × {n:,} points, d = {d}", "method": "softmin, high", "note": note}
    else:
        yield from timed_kernels(context, n, d, "high", only=("softmin", "softmin, near"))


def clouds(n: int, d: int, device: Device) -> tuple[Tensor, Tensor, float]:
    """Of the workloads of whole solves: x (n, d), y (n, d) and the blur."""
    workload = cubes(n) if d == 3 else gaussians(n, d=d)
    return workload.x.to(device.torch), workload.y.to(device.torch), workload.blur


def timed_kernels(context: Context, n: int, d: int, precision: str, only: tuple[str, ...] = ()) -> Iterator[Row]:
    from sinkdiv.kernels.triton.reductions import PointReductions

    device = context.device
    x, y, blur = clouds(n, d, device)
    eps = 2 * blur**2
    pairs = PointReductions(x[None], y[None], COSTS["sqeuclidean"], precision=precision)
    h = x.new_full((1, n), -math.log(n))
    f = pairs.softmin(h, x.new_full((1, 1), eps))
    v = around(f, h + f / eps, h, x[None], y[None], eps)
    near_itself = PointReductions(x[None], x[None], COSTS["sqeuclidean"], precision=precision)
    near_itself_guess = near_itself.softmin(h, v.eps)
    calls = of_points(pairs, v) | {"softmin, near, self": lambda: near_itself.softmin(h, v.eps, near_itself_guess)}
    for name, call in calls.items():
        if name == "softmin, bad guess" or (only and name not in only):
            continue
        head = {"table": f"{n:,} × {n:,} points, d = {d}", "method": f"{name}, {precision}"}

        def measure(name: str = name, call: Any = call) -> Row:
            found = device.timed(call) | {"peak_bytes": device.peak_bytes(call)}
            found["pairs_per_s"] = n * n / found["seconds"]
            if device.is_gpu:
                floor = charge(name, d, precision).floor(n * n, Rates.of(device))
                found["of_floor"] = floor / found["seconds"]
            return found

        yield attempted(head, measure)


def timed_peers(context: Context, n: int, d: int) -> Iterator[Row]:
    """A softmin by PyTorch, plain and compiled, and by KeOps."""
    x, y, blur = clouds(n, d, context.device)
    inputs = passes.Inputs(x, y, x.new_full((n,), -math.log(n)), 2 * blur**2)
    roads = {"PyTorch": ("torch", passes.pytorch), "KeOps": ("pykeops", passes.keops)}
    if context.device.is_gpu:
        roads["PyTorch, compiled"] = ("triton", compiled)
    for name, (package, road) in roads.items():
        head = {"table": f"{n:,} × {n:,} points, d = {d}", "method": f"{name}: softmin"}
        if find_spec(package) is None:
            yield head | {"note": "not installed"}
            continue

        def measure(road: Any = road) -> Row:
            call = road(inputs)
            found = context.device.timed(call) | {"peak_bytes": context.device.peak_bytes(call)}
            return found | {"pairs_per_s": n * n / found["seconds"]}

        yield attempted(head, measure)


def compiled(inputs: passes.Inputs) -> passes.Pass:
    """Differences where they are few, else a matrix product, some rows at a time, by `torch.compile`."""
    x, y, h, eps = inputs.x, inputs.y, inputs.h, inputs.eps

    def chunk(rows: Tensor) -> Tensor:
        if x.shape[1] <= LOW_DIMENSION:
            squares = (rows[:, None, :] - y).square().sum(-1)
        else:
            squares = rows.square().sum(-1, keepdim=True) - 2 * rows @ y.mT + y.square().sum(-1)
        return -eps * (h - squares / eps).logsumexp(-1)

    fused = torch.compile(chunk, dynamic=False)
    return lambda: torch.cat([fused(rows) for rows in x.split(passes.CHUNK)])


# Section "first".


def first(context: Context) -> Iterator[Row]:
    """The first call of kernels in a process with an empty cache of compiled ones, and the next."""
    from sinkdiv.kernels.triton.reductions import PointReductions

    n = min(1000, context.sizes.points[0])
    for d in context.sizes.dimensions[:2]:
        x, y, blur = clouds(n, d, context.device)
        pairs = PointReductions(x[None], y[None], COSTS["sqeuclidean"])
        h, eps = x.new_full((1, n), -math.log(n)), x.new_full((1, 1), 2 * blur**2)
        calls: Kernels = {
            "softmin": lambda pairs=pairs, h=h, eps=eps: pairs.softmin(h, eps),
            "marginals": lambda pairs=pairs, h=h, eps=eps: pairs.marginals(h, h, eps),
            "gradient": lambda pairs=pairs, h=h, eps=eps: pairs.plan_gradient(h, h, eps),
        }
        for name, call in calls.items():
            head = {"table": "one kernel", "method": f"{name}, d = {d}"}
            yield attempted(
                head, lambda call=call: {key: context.device.seconds(call) for key in ("first_s", "next_s")}
            )


SECTIONS = {"errors": errors, "times": times, "first": first}
