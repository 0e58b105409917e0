"""Problems of different sizes, solved as one batch: each comes out as from a solve of its own.

Padding changes the order in which sums are added up, and nothing else. The route of accelerators is forced on the CPU.
"""

import pytest
import torch

import sinkdiv
from problems import assert_slope, cloud, direction, weights
from sinkdiv import checks
from sinkdiv.costs import COSTS
from sinkdiv.geometry import CloudGeometry
from sinkdiv.solvers import Limits, Problem, Start, Status, padded
from sinkdiv.solvers import solve as run_solver

INF = float("inf")

#: Potentials after the same passes, relative to ε: the extrapolation magnifies rounding.
SAME = {torch.float64: 1e-9, torch.float32: 2e-3}


@pytest.fixture(params=["streamed", "tiled"])
def kernels(request):
    request.getfixturevalue(request.param)


@pytest.fixture
def joined(kernels, monkeypatch):
    """The route of accelerators; tells how many problems each solve was made of."""
    sizes = []
    original = padded._joined
    monkeypatch.setattr(padded, "is_worthwhile", lambda device: True)
    monkeypatch.setattr(padded, "_joined", lambda problems: sizes.append(len(problems)) or original(problems))
    return sizes


def problem(seed, n, m, *, eps=0.05, rho=(INF, INF), cost="sqeuclidean", dtype=torch.float64, batch=1, zeros=0, d=2):
    """Between two clouds at different places, or, if m is None, within one; ``zeros`` points have no weight."""
    x = cloud(900 + seed, n, d, dtype=dtype, batch=batch) * (1 + seed % 3) - seed
    a = weights(900 + seed, n, dtype=dtype, batch=batch)
    a[:, n - zeros :] = 0.0
    a = a / a.sum(-1, keepdim=True)
    if m is None:
        return Problem(CloudGeometry(x, x, COSTS[cost]), a, a, (eps,) * len(a), rho)
    y = cloud(950 + seed, m, d, dtype=dtype, batch=batch) - seed + 0.3
    b = weights(950 + seed, m, dtype=dtype, batch=batch)
    b[:, :zeros] = 0.0
    return Problem(CloudGeometry(x, y, COSTS[cost]), a, b / b.sum(-1, keepdim=True), (eps,) * len(a), rho)


def alone(problems, limits, starts=None):
    """Each solved by itself, on the route of CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(padded, "is_worthwhile", lambda device: False)
        return run_solver(problems, limits, starts or [None] * len(problems), [False] * len(problems))


def assert_same(found, expected, problems):
    for one, want, posed in zip(found, expected, problems, strict=True):
        assert one.status == want.status
        assert one.passes.tolist() == want.passes.tolist()
        atol = SAME[posed.a.dtype] * min(posed.eps)
        for name in ("f", "g", "raw_f", "raw_g", "value"):
            torch.testing.assert_close(getattr(one, name), getattr(want, name), rtol=0, atol=atol)
        error = SAME[posed.a.dtype]
        torch.testing.assert_close(one.marginal_error, want.marginal_error, rtol=0, atol=error)
        assert [spent for spent, _ in one.history] == [spent for spent, _ in want.history]
        errors, wanted = ([error for _, error in solution.history] for solution in (one, want))
        assert errors == pytest.approx(wanted, rel=1e-3, abs=error)


CASES = {
    "sizes": [problem(k, n, m) for k, (n, m) in enumerate([(9, 8), (12, 10), (16, 16), (8, 9)])],
    "zeros": [problem(k, 10 + k, 8 + k, zeros=2) for k in range(3)],
    "unbalanced": [problem(k, 10 + k, 8 + k, rho=(0.5, 1.0)) for k in range(3)],
    "each its own ε": [problem(k, 10 + k, 8 + k, eps=0.05 / (1 + k)) for k in range(3)],
    "symmetric": [problem(k, 10 + k, None, zeros=k) for k in range(3)],
    "symmetric unbalanced": [problem(k, 10 + k, None, rho=(0.5, 0.5)) for k in range(3)],
    "one point": [problem(0, 1, 1), problem(1, 2, 1), problem(2, 2, 2)],
    "one point symmetric": [problem(0, 1, None), problem(1, 2, None)],
    "batches": [problem(0, 10, 8, batch=3), problem(1, 9, 8, batch=2), problem(2, 6, 7)],
    "equal": [problem(0, 10, None, batch=2), problem(1, 10, None, batch=2)],
    "euclidean": [problem(k, 10 + k, 8 + k, cost="euclidean") for k in range(3)],
    "many dimensions": [problem(k, 10 + k, 8 + k, d=12, eps=0.5) for k in range(3)],
}


@pytest.mark.parametrize("name", CASES)
def test_each_problem_comes_out_as_from_its_own_solve(joined, name):
    """Potentials up to rounding; the same passes, status and history."""
    problems, limits = CASES[name], Limits(1e-4, 2000)
    found = run_solver(problems, limits, [None] * len(problems), [False] * len(problems))
    assert joined == [len(problems)]
    assert all(status is Status.CONVERGED for solution in found for status in solution.status)
    assert_same(found, alone(problems, limits), problems)


def test_in_single_precision(joined):
    problems = [problem(k, n, m, dtype=torch.float32) for k, (n, m) in enumerate([(9, 8), (12, 10), (16, 16)])]
    limits = Limits(1e-3, 2000)
    found = run_solver(problems, limits, [None] * 3, [False] * 3)
    assert joined == [3]
    assert_same(found, alone(problems, limits), problems)


def test_problems_end_in_their_own_ways(joined):
    """One converges early, one runs out of passes, and a callback may stop those that still run."""
    easy, hard = problem(0, 12, 10, eps=0.01), problem(1, 11, 9, eps=0.01)
    easy = Problem(CloudGeometry(0.01 * easy.geometry.x, 0.01 * easy.geometry.y, COSTS["sqeuclidean"]), easy.a, easy.b,
                   (0.01,), (INF, INF))  # fmt: skip
    limits = Limits(1e-8, 20)
    found = run_solver([easy, hard], limits, [None] * 2, [False] * 2)
    assert [solution.status[0] for solution in found] == [Status.CONVERGED, Status.MAX_PASSES]
    assert int(found[0].passes) < int(found[1].passes) == 20
    assert_same(found, alone([easy, hard], limits), [easy, hard])
    stopped = run_solver([easy, hard], Limits(1e-8, 500, lambda check: check.passes >= 20), [None] * 2, [False] * 2)
    assert [solution.status[0] for solution in stopped] == [Status.CONVERGED, Status.STOPPED]
    assert int(stopped[1].passes) == 20
    assert joined == [2, 2]


def test_starts_are_carried_over(joined):
    """From a good start few passes are left, in a batch as well."""
    problems, limits = CASES["sizes"], Limits(1e-6, 2000)
    cold = alone(problems, limits)
    starts = [Start(solution.g) for solution in cold]
    found = run_solver(problems, limits, starts, [False] * len(problems))
    assert joined == [len(problems)]
    assert_same(found, alone(problems, limits, starts), problems)
    assert all(int(one.passes) < int(before.passes) for one, before in zip(found, cold, strict=True))


def test_only_what_resembles_each_other_is_joined(joined, monkeypatch):
    """Of pairs within a factor of 4, of one dimension, cost and ρ, alike in symmetry and start, and small."""
    base = problem(0, 16, 16)
    different = [
        problem(1, 7, 9),
        problem(1, 3, 40),
        problem(1, 16, 16, rho=(1.0, 1.0)),
        problem(1, 16, 16, cost="euclidean"),
        problem(1, 16, 16, d=3),
        problem(1, 16, None),
    ]
    limits = Limits(1e-2, 500)
    for other in different:
        run_solver([base, other], limits, [None] * 2, [False] * 2)
    other = problem(1, 8, 16)
    run_solver([base, other], limits, [None, Start(torch.zeros_like(other.b))], [False] * 2)
    monkeypatch.setattr(padded, "JOINED_PAIRS", 16 * 16 - 1)
    run_solver([base, other], limits, [None] * 2, [False] * 2)
    assert joined == []
    monkeypatch.setattr(padded, "JOINED_PAIRS", 16 * 16)
    order = [problem(2, 5, 5), other, problem(3, 33, 33), base, problem(4, 4, 6), different[-1], problem(5, 30, 40)]
    found = run_solver(order, limits, [None] * 7, [False] * 7)
    assert joined == [2, 2]
    assert_same(found, alone(order, limits), order)


def test_geometries_know_what_is_padded(joined, monkeypatch):
    """How many rows and columns are each problem's own, and that the others are its first point, without weight."""
    seen = []
    monkeypatch.setattr(
        padded, "_joined", lambda problems, call=padded._joined: seen.append(call(problems)) or seen[-1]
    )
    problems = CASES["batches"]
    run_solver(problems, Limits(1e-2, 500), [None] * 3, [False] * 3)
    (batch,) = seen
    rows, columns = batch.geometry.counts
    sizes = [problem.geometry.shape for problem in sorted(problems, key=lambda one: -one.a.numel() * one.b.shape[1])]
    assert rows.tolist() == [n for b, n, _ in sizes for _ in range(b)]
    assert columns.tolist() == [m for b, _, m in sizes for _ in range(b)]
    assert batch.parts == tuple(b for b, _, _ in sizes)
    for side, weighted, points in ((rows, batch.a, batch.geometry.x), (columns, batch.b, batch.geometry.y)):
        for k, count in enumerate(side.tolist()):
            assert bool((weighted[k, count:] == 0).all())
            assert torch.equal(points[k, count:], points[k, :1].expand_as(points[k, count:]))


# What users see.


def test_lists_of_clouds(joined):
    """Values and gradients in all clouds and weights are those of one call for each."""
    sizes = [(9, 7), (12, 10), (16, 16), (1, 2), (40, 3)]
    lists = [
        [cloud(30 + k, n) for k, (n, _) in enumerate(sizes)],
        [cloud(50 + k, m) + 0.2 for k, (_, m) in enumerate(sizes)],
        [weights(30 + k, n) for k, (n, _) in enumerate(sizes)],
        [weights(50 + k, m) for k, (_, m) in enumerate(sizes)],
    ]
    for value in ("entropic", "sharp"):
        leaves = [[one.clone().requires_grad_() for one in given] for given in lists]
        values = sinkdiv.sinkhorn_divergence(*leaves, eps=0.1, value=value, tol=1e-6)
        grads = torch.autograd.grad(values.sum(), [one for given in leaves for one in given])
        expected = [[one.clone().requires_grad_() for one in given] for given in lists]
        single = [
            sinkdiv.sinkhorn_divergence(*one, eps=0.1, value=value, tol=1e-6) for one in zip(*expected, strict=True)
        ]
        wanted = torch.autograd.grad(sum(single), [one for given in expected for one in given])
        torch.testing.assert_close(values, torch.stack(single), rtol=0, atol=1e-10)
        for one, other in zip(grads, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-8)
    assert max(joined) > 2


def test_the_two_self_terms_share_a_batch(joined):
    """Of a divergence, whose three transports keep their own passes and histories."""
    x, y, a, b = cloud(70, 12), 2 * cloud(71, 9), weights(70, 12), weights(71, 9)
    d = sinkdiv.solve_divergence(x, y, a, b, eps=0.02)
    assert joined == [2]
    for transport in (d.ab, d.aa, d.bb):
        assert transport.history[-1][0] == transport.passes
        assert transport.history[-1][1] == pytest.approx(float(transport.marginal_error))
    assert d.aa.passes != d.bb.passes
    lower, upper = d.bounds
    assert lower <= d.value <= upper
    far = sinkdiv.solve_divergence(x, torch.cat([y, y, y]), eps=0.02)
    assert joined == [2]
    assert far.converged is True


@pytest.mark.parametrize("rho", [None, 0.5])
def test_gradients_are_slopes(joined, rho):
    """Of the debiased value in both clouds, by finite differences."""
    x, y = cloud(72, 6), cloud(73, 5) + 0.2
    a, b = weights(72, 6), weights(73, 5)

    def loss(x, y):
        return sinkdiv.sinkhorn_divergence(
            x, y, a, b, eps=0.2, rho=rho, tol=1e-10, solver=sinkdiv.Auto(max_passes=5000)
        )

    assert_slope(loss, (x, y), (direction(74, x.shape), direction(75, y.shape)), atol=1e-8)
    assert set(joined) == {2}


def test_warm_starts_of_modules(joined):
    """The first problem alone has a start; the self terms go on together."""
    criterion = sinkdiv.SinkhornDivergence(eps=0.02, solver=sinkdiv.Auto(warm_start=True))
    x, y = cloud(76, 12), cloud(77, 10) + 0.5
    cold = criterion(x, y)
    warm = criterion(x, y)
    assert joined == [2, 2]
    torch.testing.assert_close(warm, cold, rtol=0, atol=1e-5)


def test_without_numbers(monkeypatch):
    """A list may be captured into a CUDA graph: nothing is read, and nothing is brought from the host."""
    monkeypatch.setattr(checks, "is_captured", lambda tensor: tensor.is_meta)
    xs, ys = ([cloud(seed, n).to("meta").requires_grad_() for n in (5, 8, 6)] for seed in (78, 79))
    values = sinkdiv.sinkhorn_divergence(xs, ys, eps=0.1, tol=None, solver=sinkdiv.Auto(max_passes=10))
    assert values.shape == (3,)
    assert values.is_meta
