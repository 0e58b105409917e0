"""The kernel that solves small problems whole on a GPU, against the solvers in Python that it follows.

Where there is no GPU, Triton's interpreter runs it on the CPU.
"""

import math
from dataclasses import replace

import pytest
import torch

import sinkdiv
from problems import CLOSE, cloud, weights
from sinkdiv import Status
from sinkdiv.costs import find_cost
from sinkdiv.geometry import CloudGeometry, MatrixGeometry, whole
from sinkdiv.kernels import triton
from sinkdiv.solvers import Limits, Problem, Start, accelerated, small, solve, symmetric
from sinkdiv.solvers.accelerated import Ascent
from small_problems import Kind, assert_same_solution, transport_problem

pytestmark = pytest.mark.skipif(not triton.available, reason="Triton is not installed")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SOFT = (0.3, 2.0)
HARD = (math.inf, math.inf)


@pytest.fixture(autouse=True)
def served(request, monkeypatch):
    """On a CPU as on a GPU: what is solved there whole goes to the kernel."""
    if DEVICE == "cpu":
        monkeypatch.setattr(whole.triton, "serves", lambda tensor: tensor.dtype in triton.DTYPES)


def on_device(problem):
    """The same problem as matrices on the device, or as points where it is symmetric."""
    geometry, a = problem.geometry, problem.a.to(DEVICE)
    if problem.symmetric:
        x = geometry.x.to(DEVICE)
        return Problem(CloudGeometry(x, x, geometry.cost), a, a, problem.eps, problem.rho)
    C = geometry.costs().to(DEVICE)
    matrix = MatrixGeometry(C)
    matrix.spread = lambda: geometry.spread().to(DEVICE)  # that of points is a bound
    return Problem(matrix, a, problem.b.to(DEVICE), problem.eps, problem.rho)


def by_kernel(problem, limits, start=None):
    """On the CPU again."""
    problem = on_device(problem)
    assert small.engine_of([problem], limits) is not None
    start = None if start is None else Start(start.g.to(DEVICE))
    (solution,) = solve([problem], limits, [start], [False])
    tensors = ("f", "g", "raw_f", "raw_g", "marginal_error", "value", "passes")
    return replace(solution, **{name: getattr(solution, name).cpu() for name in tensors})


def by_python(problem, limits, start=None):
    return (symmetric if problem.symmetric else accelerated)(problem, limits, start)


KINDS = {
    "one pair": Kind(n=1, m=1),
    "one row": Kind(n=1, m=2, batch=2),
    "one column": Kind(n=2, m=1, rho=SOFT),
    "rectangular": Kind(n=7, m=33, batch=3, empty=True),
    "upright": Kind(n=33, m=7, eps=0.03, rho=SOFT, empty=True),
    "full": Kind(n=64, m=64, eps=0.03, d=3),
    "euclidean": Kind(n=17, m=9, eps=0.05, name="euclidean", rho=(0.3, 0.3)),
    "self": Kind(n=33, batch=2, eps=0.02, form="symmetric", empty=True),
    "soft self": Kind(n=7, eps=0.05, form="symmetric", rho=(0.3, 0.3), empty=True),
}


@pytest.mark.parametrize("name", KINDS)
def test_it_is_the_solver(name):
    """The same passes, status, history and numbers, problem by problem, in float64."""
    problem, limits = transport_problem(KINDS[name]), Limits(1e-7, 2000)
    assert_same_solution(by_kernel(problem, limits), by_python(problem, limits), problem, limits)


@pytest.mark.parametrize("form", ["points", "symmetric"])
@pytest.mark.parametrize("rho", [HARD, (0.3, 0.3)])
def test_blocks_of_rows(monkeypatch, form, rho):
    """A cost matrix that does not fit into registers is gone through in blocks of rows, to the same end."""
    from sinkdiv.kernels.triton import small as kernel

    monkeypatch.setitem(kernel.TILE, torch.float64, 2**7)
    problem = transport_problem(Kind(n=30, m=15, eps=0.1, form=form, rho=rho, empty=True))
    # No row of the first block has weight: the columns' sums begin empty.
    problem.a[:, :8] = 0
    problem.a.div_(problem.a.sum())
    limits = Limits(1e-7, 2000)
    assert_same_solution(by_kernel(problem, limits), by_python(problem, limits), problem, limits)


@pytest.mark.parametrize("form", ["matrix", "symmetric"])
@pytest.mark.parametrize("rho", [HARD, (0.3, 0.3)])
def test_an_eps_for_each_problem(form, rho):
    """A batch with different ε is solved as its problems are, one by one: bit for bit, for nothing is shared."""
    from sinkdiv.kernels.triton.small import solve_small

    problem = transport_problem(Kind(batch=3, n=9, m=7, rho=rho, form=form, empty=True))
    C = problem.geometry.reductions(0).costs()
    given = [t.to(DEVICE) for t in (C, problem.a, problem.b, problem.geometry.spread())]
    eps = torch.tensor([0.03, 0.1, 1.0], dtype=torch.float64, device=DEVICE)

    def solved(which):
        return solve_small(
            *(t[which] for t in given), eps[which], rho,
            symmetric=problem.symmetric, start=None, tol=1e-6, max_passes=200, checks=2,
        )  # fmt: skip

    together = solved(slice(None))
    assert len(set(together[1].tolist())) > 1, "the problems must differ"
    for b in range(3):
        alone = solved(slice(b, b + 1))
        for one, other in zip(together, alone, strict=True):  # errors are NaN above the target ε
            assert torch.equal(one[b : b + 1].nan_to_num(-2), other.nan_to_num(-2))


def clusters(dtype=torch.float64):
    """Two clusters, far apart relative to ε, that have to exchange a little mass."""
    x, y = cloud(31, 12, dtype=dtype)[None] * 0.05, cloud(32, 12, dtype=dtype)[None] * 0.05
    x[:, 6:] += 1
    y[:, 5:] += 1
    a = torch.full((1, 12), 1 / 12, dtype=dtype)
    return Problem(CloudGeometry(x, y, find_cost("sqeuclidean")), a, a.clone(), (0.03,) * len(a), HARD)


def test_safeguards(monkeypatch):
    """Where extrapolations fall, both take secant and plain steps at the same times."""
    failures, punish = [], Ascent._punish
    monkeypatch.setattr(Ascent, "_punish", lambda self, which: failures.append(bool(which)) or punish(self, which))
    problem, limits = clusters(), Limits(1e-7, 70)
    expected = by_python(problem, limits)
    assert any(failures), "the problem must be one on which extrapolations fail twice in a row"
    solution = by_kernel(problem, limits)
    assert solution.passes.tolist() == expected.passes.tolist()
    errors = [torch.tensor([error for _, error in one.history]) for one in (solution, expected)]
    torch.testing.assert_close(*errors, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("form", ["points", "symmetric"])
def test_single_precision(form):
    """Tolerance met by the plan itself, seen in float64; the value is that of float64."""
    kind, limits = Kind(n=33, m=20, batch=2, eps=0.05, form=form, empty=True), Limits(1e-4, 2000)
    problem = transport_problem(kind, torch.float32)
    solution = by_kernel(problem, limits)
    assert solution.status == (Status.CONVERGED,) * 2
    x, y, a, b = (t.double() for t in (problem.geometry.x, problem.geometry.y, problem.a, problem.b))
    exponents = (
        solution.f.double()[:, :, None] + solution.g.double()[:, None, :] - (torch.cdist(x, y) ** 2)
    ) / kind.eps
    plan = a[:, :, None] * b[:, None, :] * exponents.exp()
    error = (plan.sum(2) - a).abs().sum(1) + (plan.sum(1) - b).abs().sum(1)
    torch.testing.assert_close(error, solution.marginal_error.double(), rtol=0, atol=1e-5)
    assert (error <= 1e-4 + 1e-5).all()
    exact = by_python(transport_problem(kind), Limits(1e-9, 2000))
    torch.testing.assert_close(solution.value.double(), exact.value, rtol=0, atol=CLOSE[torch.float32])


@pytest.mark.parametrize("max_passes", [1, 2, 5, 9, 12])
@pytest.mark.parametrize("form", ["points", "symmetric"])
def test_limits_are_kept(max_passes, form):
    """With a few passes only, both spend the same ones and say so."""
    problem, limits = transport_problem(Kind(batch=2, n=7, m=5, eps=0.01, form=form)), Limits(1e-9, max_passes)
    assert_same_solution(by_kernel(problem, limits), by_python(problem, limits), problem, limits)


@pytest.mark.parametrize("form", ["points", "symmetric"])
def test_best_iterate_is_kept(form):
    """A tolerance below the arithmetic: all passes are spent, the status says why, any number may be allowed."""
    problem = transport_problem(Kind(n=7, m=5, eps=0.1, form=form), torch.float32)
    solution = by_kernel(problem, Limits(1e-30, 51))
    if float(solution.marginal_error) > 0:
        assert solution.status == (Status.PRECISION,)
        assert int(solution.passes) == (51 if form == "symmetric" else 50)
    assert float(solution.marginal_error) == pytest.approx(min(error for _, error in solution.history), rel=1e-6)
    assert by_kernel(problem, Limits(1e-3, 10**13)).status == (Status.CONVERGED,)


@pytest.mark.parametrize("form", ["points", "symmetric"])
@pytest.mark.parametrize("rho", [HARD, (0.3, 0.3)])
def test_starts(form, rho):
    """From the solution one or two steps are enough; nonsense is annealed away."""
    problem, limits = transport_problem(Kind(n=20, m=15, eps=0.05, rho=rho, form=form)), Limits(1e-7, 2000)
    cold = by_python(problem, limits)
    warm = by_kernel(problem, limits, Start(cold.g))
    assert int(warm.passes) <= 4 < int(cold.passes)
    torch.testing.assert_close(warm.value, cold.value, rtol=0, atol=CLOSE[torch.float64])
    g = 50 * torch.randn(problem.b.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lost = by_kernel(problem, limits, Start(g))
    assert lost.status == (Status.CONVERGED,)
    # Where marginals are hard, the constant in nonsense of size 50 stays, and the value carries units of it.
    torch.testing.assert_close(lost.value, cold.value, rtol=0, atol=200 * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize(("eps", "rho", "offset"), [(0.07, 0.015, 3.0), (1e-3, 1e-3, 30.0)])
def test_soft_marginals_of_samples_far_apart(dtype, eps, rho, offset):
    """Costs of many ρ: the weights times exp(−g/ρ) that choose the constant are beyond the range of the dtype."""
    x, y = cloud(806, 10, dtype=dtype)[None], cloud(807, 12, dtype=dtype)[None] + offset
    a, b = weights(806, 10, dtype=dtype)[None], weights(807, 12, dtype=dtype)[None]
    problem = Problem(CloudGeometry(x, y, find_cost("sqeuclidean")), a, b, (eps,) * len(a), (rho, rho))
    ours, theirs = (solver(problem, Limits(1e-3, 60)) for solver in (by_kernel, by_python))
    assert ours.status == theirs.status
    assert torch.equal(ours.marginal_error.isfinite(), theirs.marginal_error.isfinite())
    assert ours.f.isfinite().all()
    torch.testing.assert_close(ours.value, theirs.value, rtol=1e-5, atol=20 * torch.finfo(dtype).eps)


def test_costs_that_overflow_are_refused():
    a = torch.ones(1, 2, device=DEVICE) / 2
    geometry = MatrixGeometry(torch.full((1, 2, 2), 3e38, device=DEVICE))
    problem = Problem(geometry, a, a.clone(), (0.1,), HARD)
    problem.geometry.C[:, 0] *= -1
    with pytest.raises(OverflowError):
        solve([problem], Limits(1e-3, 100), [None], [False])


def test_what_is_small():
    """Beyond a side, with forbidden pairs, or watched, problems are solved pass by pass."""

    def problem(n, m, value=0.0):
        a, b = torch.ones(1, n, device=DEVICE) / n, torch.ones(1, m, device=DEVICE) / m
        C = torch.zeros(1, n, m, device=DEVICE)
        C[:, 0, 0] = value
        return Problem(MatrixGeometry(C), a, b, (0.1,) * len(a), HARD)

    limits = Limits(1e-3, 100)
    assert small.engine_of([problem(256, 256)], limits) is not None
    assert small.engine_of([problem(257, 3)], limits) is None
    assert small.engine_of([problem(3, 257)], limits) is None
    assert small.engine_of([problem(3, 4, math.inf)], limits) is None
    assert small.engine_of([problem(3, 4)], replace(limits, watch=lambda check: False)) is None


@pytest.mark.parametrize(("dtype", "reach"), [(torch.float64, None), (torch.float32, 0.7)])
def test_a_divergence(dtype, reach, monkeypatch):
    """Value and gradient of a loss are those that the CPU finds; its two self problems share a launch."""
    from sinkdiv.kernels.triton import small as kernel

    def loss(device):
        x = cloud(40, 12, 3, dtype=dtype, batch=2).to(device).requires_grad_()
        y = cloud(41, 9, 3, dtype=dtype, batch=2).to(device) + 0.2
        value = sinkdiv.sinkhorn_divergence(x, y, blur=0.3, reach=reach, tol=1e-6 if dtype == torch.float64 else 1e-4)
        return value.detach().cpu(), torch.autograd.grad(value.sum(), x)[0].cpu()

    launches, solve_small = [], kernel.solve_small
    monkeypatch.setattr(kernel, "solve_small", lambda *args, **more: launches.append(1) or solve_small(*args, **more))
    value, gradient = loss(DEVICE)
    assert len(launches) == 2
    monkeypatch.undo()
    expected_value, expected_gradient = loss("cpu")
    atol = 1e-10 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(value, expected_value, rtol=0, atol=atol)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=atol)
