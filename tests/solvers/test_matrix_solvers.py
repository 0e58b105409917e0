"""Solvers of explicit cost matrices: every method, easy and hard problems, forbidden pairs, limits and statuses."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sinkdiv
from problems import SOLVERS, array, cloud, costs, primal, weights
from sinkdiv import Status
from sinkdiv.geometry import MatrixGeometry
from sinkdiv.solvers import Limits, Problem, accelerated, gibbs
from sinkdiv.solvers.hessian import SemiDualHessian
from sinkdiv.solvers.stored import StoredKernel

INF = math.inf


@pytest.fixture(params=SOLVERS)
def method(request):
    return request.param


@pytest.fixture
def stored(monkeypatch):
    """As large problems are solved: nothing is left to the native solver of small ones."""
    monkeypatch.setattr(gibbs, "QUICK_ENTRIES", 0)


@pytest.fixture(params=["quick", "stored"])
def size(request):
    """As small problems are solved and as large ones are."""
    if request.param == "stored":
        request.getfixturevalue("stored")
    return request.param


def uniform(seed, n, m, batch=None, dtype=torch.float64):
    """Costs uniform in [0, 1]."""
    shape = (n, m) if batch is None else (batch, n, m)
    return torch.tensor(np.random.default_rng(4000 + seed).random(shape), dtype=dtype)


def squared(seed, n, m, dtype=torch.float64):
    """Squared distances between two clouds in the unit square."""
    return torch.tensor(costs(cloud(seed, n), cloud(seed + 1, m)), dtype=dtype)


def reference(C, a, b, eps, rho=(INF, INF)):
    """The potentials (f, g) by softmins in the log domain, to 1e-12."""
    problem = Problem(MatrixGeometry(C[None]), a[None], b[None], (eps,), rho)
    solution = accelerated(problem, Limits(1e-12, 40_000))
    assert float(solution.marginal_error) <= 2e-12
    return solution


def marginal_error(t, C, a, b, eps):
    """Both relative L1 errors of a balanced plan, added up, in float64 from the potentials alone."""
    f, g, C, a, b = (array(tensor) for tensor in (t.f, t.g, C, a, b))
    logs = (f[:, None] + g[None, :] - C) / eps
    P = a[:, None] * b[None, :] * np.exp(np.where(a[:, None] * b[None, :] > 0, logs, 0.0))
    return float(np.abs(P.sum(1) - a).sum() / a.sum() + np.abs(P.sum(0) - b).sum() / b.sum())


# Exact answers.


@pytest.mark.parametrize("eps", [1e-3, 0.1, 10.0])
def test_two_points(method, size, eps):
    """C = [[0, c], [c, 0]] and equal weights: sharp = c/(1 + e^{c/ε}), OT_ε = −ε log((1 + e^{−c/ε})/2)."""
    c = 0.7
    C = torch.tensor([[0, c], [c, 0]], dtype=torch.float64)
    t = sinkdiv.solve_matrix(C, eps=eps, tol=1e-12, solver=SOLVERS[method]())
    assert float(t.sharp) == pytest.approx(c / (1 + math.exp(min(c / eps, 700))), rel=1e-9, abs=1e-300)
    assert float(t.value) == pytest.approx(-eps * math.log((1 + math.exp(-c / eps)) / 2), rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 1)])
def test_single_points(method, size, shape):
    """One point on a side leaves no choice: the plan is abᵀ, the value <C, abᵀ>."""
    C, a, b = uniform(1, *shape), weights(1, shape[0]), weights(2, shape[1])
    t = sinkdiv.solve_matrix(C, a, b, eps=0.01, tol=1e-12, solver=SOLVERS[method]())
    torch.testing.assert_close(t.plan(), a[:, None] * b, rtol=1e-12, atol=0)
    assert float(t.value) == pytest.approx(float((C * a[:, None] * b).sum()), rel=1e-12)


def test_large_eps(method, size):
    """OT_ε = <C, abᵀ> − V/2ε + O(ε⁻²), V the weighted square of the doubly centred C."""
    C, a, b, eps = uniform(3, 20, 30), weights(3, 20), weights(4, 30), 1e3
    centred = C - (C @ b)[:, None] - (a @ C)[None, :] + a @ C @ b
    expected = a @ C @ b - a @ centred.square() @ b / (2 * eps)
    t = sinkdiv.solve_matrix(C, a, b, eps=eps, tol=1e-12, solver=SOLVERS[method]())
    assert float(t.value) == pytest.approx(float(expected), abs=1 / eps**2)


def test_small_eps_is_optimal_transport(method, size):
    """On a line the sorted coupling is optimal: 0 ≤ sharp − OT_0 ≤ ε log n, at ε = 1e-4 of the range.

    Up to a marginal error, of which the methods of first order cannot rid themselves here in a reasonable time.
    """
    x, y = cloud(5, 40, 1).sort(0).values, cloud(6, 40, 1).sort(0).values
    C = torch.tensor(costs(x, y))
    eps = 1e-4 * float(C.max() - C.min())
    exact = float((x - y).square().mean())
    tol = 1e-10 if method in ("newton", "auto") else 1e-4
    t = sinkdiv.solve_matrix(C, eps=eps, tol=tol, solver=SOLVERS[method](max_passes=10_000))
    assert -tol <= float(t.sharp) - exact <= eps * math.log(40)


# The same solution by every method.


@pytest.mark.parametrize("make", [uniform, squared])
@pytest.mark.parametrize("eps", [1e-1, 1e-2, 1e-3])
def test_potentials_value_and_plan(method, size, make, eps):
    """Against softmins in the log domain, to 1e-12; unequal weights, n ≠ m."""
    C, a, b = make(10, 50, 35), weights(10, 50), weights(11, 35)
    expected = reference(C, a, b, eps)
    t = sinkdiv.solve_matrix(C, a, b, eps=eps, tol=1e-10, solver=SOLVERS[method](max_passes=20_000))
    assert t.status is Status.CONVERGED
    assert marginal_error(t, C, a, b, eps) <= 2e-10
    assert float(t.value) == pytest.approx(float(expected.value), rel=1e-12, abs=1e-13)
    shift = (t.f - expected.f[0]).mean()
    torch.testing.assert_close(t.f - shift, expected.f[0], rtol=0, atol=1e-6 * eps**0.5)
    torch.testing.assert_close(t.g + shift, expected.g[0], rtol=0, atol=1e-6 * eps**0.5)
    P = array(t.plan())
    assert primal(P, array(C), array(a), array(b), eps) == pytest.approx(float(t.value), abs=1e-8)


@pytest.mark.parametrize("make", [uniform, squared])
@pytest.mark.parametrize("name", ["newton", "auto"])
def test_tight_tolerance_at_small_eps(size, make, name):
    """1e-10 at ε = 1e-4 of the range, where Sinkhorn's algorithm alone would take many times the passes."""
    C, a, b = make(12, 80, 80), weights(12, 80), weights(13, 80)
    eps = 1e-4 * float(C.max() - C.min())
    t = sinkdiv.solve_matrix(C, a, b, eps=eps, tol=1e-10, solver=SOLVERS[name](max_passes=4000))
    assert t.status is Status.CONVERGED
    assert t.passes <= 4000
    assert marginal_error(t, C, a, b, eps) <= 1e-10 + 20 * 2.2e-16 / 1e-4


@given(seed=st.integers(0, 9999), log_eps=st.floats(-3, 1), method=st.sampled_from(list(SOLVERS)), soft=st.booleans())
def test_the_reported_error_is_that_of_the_plan(dtype, size, seed, log_eps, method, soft):
    """Recomputed in float64 from the potentials, whatever became of the solve; the rows of the plan are exact."""
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 25, 2)
    C, a, b = uniform(seed, n, m, dtype=dtype), weights(seed, n, dtype=dtype), weights(seed + 1, m, dtype=dtype)
    eps, rho = 10**log_eps, 0.8 if soft else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sinkdiv.ConvergenceWarning)
        t = sinkdiv.solve_matrix(C, a, b, eps=eps, rho=rho, tol=1e-4, solver=SOLVERS[method](max_passes=300))
    f, g, aa, bb = (array(tensor) for tensor in (t.f, t.g, a, b))
    P = aa[:, None] * bb * np.exp((f[:, None] + g - array(C)) / eps)
    rows, columns = (aa * np.exp(-f / rho), bb * np.exp(-g / rho)) if soft else (aa, bb * aa.sum() / bb.sum())
    rounding = 20 * torch.finfo(dtype).eps * (1 + 1 / eps)
    assert np.abs(P.sum(1) - rows).sum() / rows.sum() <= rounding
    assert np.abs(P.sum(0) - columns).sum() / columns.sum() == pytest.approx(float(t.marginal_error), abs=rounding)


def test_zero_weights_are_as_if_deleted(method, size):
    """And their potentials are the softmins of the others."""
    C, a, b = squared(20, 30, 40), weights(20, 30), weights(21, 40)
    a[::3], b[1::4] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    kept = C[a > 0][:, b > 0]
    options = {"eps": 0.01, "tol": 1e-11, "solver": SOLVERS[method](max_passes=20_000)}
    t, small = sinkdiv.solve_matrix(C, a, b, **options), sinkdiv.solve_matrix(kept, a[a > 0], b[b > 0], **options)
    assert float(t.value) == pytest.approx(float(small.value), abs=1e-13)
    torch.testing.assert_close(t.plan()[a > 0][:, b > 0], small.plan(), rtol=0, atol=1e-12)
    assert float(t.plan().sum()) == pytest.approx(1, abs=1e-12)
    f = -0.01 * torch.logsumexp(b.log() + (t.g - C) / 0.01, 1)
    g = -0.01 * torch.logsumexp(a.log()[:, None] + (t.f[:, None] - C) / 0.01, 0)
    torch.testing.assert_close(t.f, f, rtol=0, atol=1e-12)
    torch.testing.assert_close(t.g[b == 0], g[b == 0], rtol=0, atol=1e-12)


def test_batch_is_a_loop(method, size):
    """Problems that are easy and hard, each with its own status and passes."""
    C = torch.stack([uniform(30, 20, 25), 30 * uniform(31, 20, 25), 0.01 * uniform(32, 20, 25)])
    a, b = weights(30, 20, batch=3), weights(31, 25, batch=3)
    options = {"eps": 0.05, "tol": 1e-9, "solver": SOLVERS[method](max_passes=4000)}
    batch = sinkdiv.solve_matrix(C, a, b, **options)
    assert batch.converged.all()
    assert (batch.marginal_error <= 1e-9).all()
    assert batch.passes[2] < batch.passes[1] <= 4000
    for k in range(3):
        one = sinkdiv.solve_matrix(C[k], a[k], b[k], **options)
        assert float(batch.value[k]) == pytest.approx(float(one.value), rel=1e-11)
        torch.testing.assert_close(batch.plan()[k], one.plan(), rtol=0, atol=1e-8)


def test_soft_marginals(method, size):
    """Against the solver of point clouds, a pair of strengths and unequal masses; ρ → ∞ is the balanced problem."""
    x, y, a, b = cloud(40, 30), cloud(41, 35) + 0.2, weights(40, 30), weights(41, 35, mass=1.7)
    C = torch.tensor(costs(x, y))
    for rho in (0.5, (0.1, 20.0)):
        t = sinkdiv.solve_matrix(C, a, b, eps=0.01, rho=rho, tol=1e-10, solver=SOLVERS[method](max_passes=20_000))
        expected = sinkdiv.solve(x, y, a, b, eps=0.01, rho=rho, tol=1e-10, solver=sinkdiv.Auto(max_passes=20_000))
        assert float(t.value) == pytest.approx(float(expected.value), rel=1e-10)
        torch.testing.assert_close(t.f, expected.f, rtol=0, atol=1e-8)
        torch.testing.assert_close(t.plan(), expected.plan(), rtol=0, atol=1e-10)
    b = b / 1.7
    hard = sinkdiv.solve_matrix(C, a, b, eps=0.01, tol=1e-10, solver=SOLVERS[method](max_passes=20_000))
    t = sinkdiv.solve_matrix(C, a, b, eps=0.01, rho=1e6, tol=1e-9, solver=SOLVERS[method](max_passes=20_000))
    assert float(t.value) == pytest.approx(float(hard.value), abs=1e-6)


def test_bounds_contain_the_value(method, size):
    C, a, b = squared(50, 30, 30), weights(50, 30), weights(51, 30)
    exact = float(reference(C, a, b, 0.02).value)
    t = sinkdiv.solve_matrix(C, a, b, eps=0.02, tol=1e-2, solver=SOLVERS[method]())
    lower, upper = t.bounds
    assert float(lower) <= exact <= float(upper)
    assert float(t.value) == pytest.approx(exact, rel=1e-3)


# "auto" is never worse.


@pytest.mark.parametrize("passes", [50, 300, 1000])
def test_auto_is_never_worse_than_sinkhorn(size, passes):
    """Over random, clustered and planar costs, ε from 1e-4 to 0.1 of the range: where Sinkhorn's algorithm meets the
    tolerance so does "auto", and elsewhere its error is no larger (but for the last digits of an iterate)."""
    tol, met = 1e-6, {"auto": 0, "sinkhorn": 0}
    for seed in range(5):
        n = 20 + 10 * seed
        labels = torch.tensor(np.random.default_rng(seed).integers(0, 3, n)).double()
        clusters = (labels[:, None] - labels.flip(0)).square() + 1e-3 * uniform(seed, n, n)
        for C in (uniform(seed, n, n), squared(seed, n, n), clusters):
            eps = float(C.max() - C.min()) * 10 ** (-4 + 3 * seed / 4)
            errors = {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", sinkdiv.ConvergenceWarning)
                for name in met:
                    t = sinkdiv.solve_matrix(
                        C,
                        weights(seed, n),
                        weights(seed + 1, n),
                        eps=eps,
                        tol=tol,
                        solver=SOLVERS[name](max_passes=passes),
                    )
                    assert t.passes <= passes
                    errors[name] = float(t.marginal_error)
                    met[name] += t.converged
            assert errors["auto"] <= max(tol, 1.001 * errors["sinkhorn"])
    assert met["auto"] >= met["sinkhorn"]


def test_auto_turns_to_newton(stored):
    """Where Sinkhorn's algorithm would need many times the passes."""
    C = uniform(60, 100, 100)
    options = {"eps": 1e-4, "tol": 1e-9}
    auto = sinkdiv.solve_matrix(C, solver=sinkdiv.Auto(max_passes=4000), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sinkdiv.ConvergenceWarning)
        plain = sinkdiv.solve_matrix(C, solver=sinkdiv.Sinkhorn(max_passes=4000), **options)
    assert auto.converged
    assert auto.passes < plain.passes / 2


# Forbidden pairs.


def blocks(seed, *, soft=False):
    """Two separate problems as one, their pairs forbidden: (C, a, b) and the two."""
    first = (squared(seed, 12, 10), weights(seed, 12, mass=0.4), weights(seed + 1, 10, mass=0.4))
    second = (uniform(seed, 9, 14), weights(seed + 2, 9, mass=0.6), weights(seed + 3, 14, mass=0.6))
    C = torch.full((21, 24), INF, dtype=torch.float64)
    C[:12, :10], C[12:, 10:] = first[0], second[0]
    return (C, torch.cat([first[1], second[1]]), torch.cat([first[2], second[2]])), first, second


@pytest.mark.parametrize("rho", [None, 0.3, (0.2, 2.0)])
def test_forbidden_blocks_are_separate_problems(method, rho):
    """Potentials, plan, sharp value and marginals; the value differs by ε times the difference of Σ ab."""
    (C, a, b), first, second = blocks(70)
    options = {"eps": 0.02, "tol": 1e-10, "rho": rho}
    t = sinkdiv.solve_matrix(C, a, b, solver=SOLVERS[method](max_passes=20_000), **options)
    solver = sinkdiv.Auto(max_passes=20_000)
    one, two = (sinkdiv.solve_matrix(*parts, solver=solver, **options) for parts in (first, second))
    assert t.converged
    P = t.plan()
    assert bool((P[C == INF] == 0).all())
    torch.testing.assert_close(P[:12, :10], one.plan(), rtol=0, atol=1e-10)
    torch.testing.assert_close(P[12:, 10:], two.plan(), rtol=0, atol=1e-10)
    assert float(t.sharp) == pytest.approx(float(one.sharp + two.sharp), abs=1e-9)
    product = float(a.sum() * b.sum() - sum(p.sum() * q.sum() for _, p, q in (first, second)))
    assert float(t.value) == pytest.approx(float(one.value + two.value) + 0.02 * product, abs=1e-9)
    rows, columns = t.marginals()
    torch.testing.assert_close(rows, P.sum(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(columns, P.sum(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(t.apply(torch.ones_like(b)), P.sum(1), rtol=0, atol=1e-12)
    lower, upper = t.bounds
    assert float(lower) <= float(t.value) + 1e-12
    assert float(lower) == pytest.approx(float(t.value), abs=1e-9)
    assert float(upper) >= float(t.value) - 1e-12  # maybe +∞, never NaN


def test_a_gradient_is_the_plan_where_pairs_are_forbidden(method):
    """∂OT_ε/∂C = P, which is zero at a forbidden pair."""
    (C, a, b), _, _ = blocks(75)
    C.requires_grad_()
    t = sinkdiv.solve_matrix(C, a, b, eps=0.02, tol=1e-9, solver=SOLVERS[method](max_passes=20_000))
    (gradient,) = torch.autograd.grad(t.value, C)
    torch.testing.assert_close(gradient, t.plan().detach(), rtol=0, atol=1e-15)


def test_scattered_forbidden_pairs(method, dtype):
    """A third of all pairs, weights of zero among them; against a cost too large to be paid."""
    C, a, b = squared(80, 40, 30, dtype), weights(80, 40, dtype=dtype), weights(81, 30, dtype=dtype)
    forbidden = torch.tensor(np.random.default_rng(80).random((40, 30)) < 0.33)
    a[::5], b[::7] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    forbidden[0] = True  # a row without weight may lead nowhere
    tol = 1e-10 if dtype == torch.float64 else 1e-4
    options = {"eps": 0.05, "tol": tol}
    solver = SOLVERS[method](max_passes=20_000)
    t = sinkdiv.solve_matrix(torch.where(forbidden, INF, C), a, b, solver=solver, **options)
    wide = [w.double() / w.double().sum() for w in (a, b)]
    solver = sinkdiv.Auto(max_passes=20_000)
    dear = sinkdiv.solve_matrix(torch.where(forbidden, 50.0, C.double()), *wide, solver=solver, **options)
    assert t.converged
    for tensor in (t.value, t.sharp, t.f, t.g, t.marginal_error, t.bounds[0]):
        assert torch.isfinite(tensor).all()
    assert not torch.isnan(t.bounds[1])
    assert float(t.value) == pytest.approx(float(dear.value), abs=tol)
    torch.testing.assert_close(t.plan().double(), dear.plan(), rtol=0, atol=10 * tol)


def test_infeasible_supports_end_with_a_true_status(method, dtype):
    """Both rows may go to the first column only, which takes half: no plan exists; nothing turns into NaN."""
    C = torch.tensor([[0.1, INF, INF], [0.2, INF, INF], [0.3, 0.1, 0.5]], dtype=dtype)
    a = torch.tensor([0.4, 0.4, 0.2], dtype=dtype)
    b = torch.tensor([0.5, 0.3, 0.2], dtype=dtype)
    with pytest.warns(sinkdiv.ConvergenceWarning):
        t = sinkdiv.solve_matrix(C, a, b, eps=0.01, tol=1e-3, solver=SOLVERS[method](max_passes=3000))
    assert t.status in (Status.MAX_PASSES, Status.PRECISION)
    assert 0.5 <= float(t.marginal_error) < 2
    assert t.passes <= 3000
    for tensor in (t.value, t.sharp, t.f, t.g, t.plan()):
        assert torch.isfinite(tensor).all()
    assert not any(torch.isnan(bound) for bound in t.bounds)


@pytest.mark.parametrize("rho", [None, 1.0])
def test_weight_without_a_way_is_refused(rho):
    """A row or a column with weight and only forbidden pairs, or pairs that lead to no weight."""
    C, a, b = uniform(90, 4, 5), weights(90, 4), weights(91, 5)
    row, column, way = C.clone(), C.clone(), C.clone()
    row[2], column[:, 3], way[2, 1:] = INF, INF, INF
    with pytest.raises(ValueError, match=r"\bC\b.*row 2\b"):
        sinkdiv.solve_matrix(row, a, b, eps=0.1, rho=rho)
    with pytest.raises(ValueError, match=r"\bC\b.*column 3 of problem 1\b"):
        sinkdiv.solve_matrix(torch.stack([C, column]), a.expand(2, 4), b.expand(2, 5), eps=0.1, rho=rho)
    b[0] = 0
    with pytest.raises(ValueError, match=r"\bC\b.*row 2\b"):
        sinkdiv.solve_matrix(way, a, b / b.sum(), eps=0.1, rho=rho)


@pytest.mark.parametrize("bad", [math.nan, -INF])
def test_other_infinities_are_refused(bad):
    C = uniform(92, 4, 5)
    C[1, 1], C[0, 0] = bad, INF
    with pytest.raises(ValueError, match=r"\bC\b"):
        sinkdiv.solve_matrix(C, eps=0.1)


# Limits, callbacks, statuses.


@pytest.mark.parametrize("max_passes", [2, 3, 5, 8, 21, 100])
@pytest.mark.parametrize("rho", [None, 0.5])
def test_work_is_bounded(method, size, max_passes, rho):
    """Never more passes than allowed, and an honest error with however few."""
    C, a, b = uniform(100, 30, 20), weights(100, 30), weights(101, 20)
    with pytest.warns(sinkdiv.ConvergenceWarning, match="max_passes"):
        t = sinkdiv.solve_matrix(C, a, b, eps=1e-3, rho=rho, tol=1e-9, solver=SOLVERS[method](max_passes=max_passes))
    assert t.status is Status.MAX_PASSES
    assert 0 < t.passes <= max_passes
    assert torch.isfinite(t.value)
    rows, columns = t.marginals()
    torch.testing.assert_close(rows, t.plan().sum(1), rtol=0, atol=1e-10)
    torch.testing.assert_close(columns, t.plan().sum(0), rtol=0, atol=1e-10)


def test_a_callback_sees_the_checks_and_the_end(method):
    """Passes grow, the error is NaN until the target ε, the last check is the result's."""
    seen = []
    t = sinkdiv.solve_matrix(uniform(110, 30, 30), eps=0.01, tol=1e-8, solver=SOLVERS[method](callback=seen.append))
    assert [check.passes for check in seen] == sorted({check.passes for check in seen})
    assert seen[0].eps > 0.01
    assert all(math.isnan(check.marginal_error) == (check.eps > 0.0100001) for check in seen)
    assert [check.unfinished for check in seen] == [1] * (len(seen) - 1) + [0]
    assert seen[-1].passes == t.passes == t.history[-1][0]
    assert seen[-1].marginal_error == float(t.marginal_error) == t.history[-1][1] <= 1e-8


@pytest.mark.parametrize("checks", [1, 3, 12])
@pytest.mark.parametrize("rho", [None, 0.5])
def test_a_callback_ends_the_solve(method, checks, rho):
    """What it leaves is consistent, at the target ε."""
    seen = []

    def stop(check):
        seen.append(check)
        return len(seen) >= checks

    with pytest.warns(sinkdiv.ConvergenceWarning, match="callback"):
        t = sinkdiv.solve_matrix(
            uniform(111, 30, 30), eps=1e-4, rho=rho, tol=1e-13, solver=SOLVERS[method](max_passes=5000, callback=stop)
        )
    assert len(seen) == checks
    assert t.status is Status.STOPPED
    rows, _ = t.marginals()
    torch.testing.assert_close(rows, t.plan().sum(1), rtol=0, atol=1e-10)
    assert torch.isfinite(t.marginal_error)


def test_exceptions_of_a_callback_reach_the_caller(method):
    def interrupt(check):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sinkdiv.solve_matrix(uniform(112, 9, 9), eps=0.1, solver=SOLVERS[method](callback=interrupt))


def test_history_ends_with_the_result(method, size):
    t = sinkdiv.solve_matrix(squared(113, 40, 40), eps=2e-3, tol=1e-9, solver=SOLVERS[method](max_passes=20_000))
    passes, errors = zip(*t.history, strict=True)
    assert list(passes) == sorted(set(passes))
    assert passes[-1] == t.passes
    assert errors[-1] == pytest.approx(float(t.marginal_error))


def test_float32_calls_its_limits_by_name(method, size):
    """A tolerance below the arithmetic is PRECISION; one above it is met."""
    C, a, b = squared(120, 40, 40), weights(120, 40), weights(121, 40)
    single = [tensor.float() for tensor in (C, a, b)]
    with pytest.warns(sinkdiv.ConvergenceWarning, match="float64"):
        t = sinkdiv.solve_matrix(*single, eps=0.01, tol=1e-9, solver=SOLVERS[method](max_passes=600))
    assert t.status is Status.PRECISION
    assert float(t.marginal_error) < 1e-4
    exact = sinkdiv.solve_matrix(C, a, b, eps=0.01, tol=1e-10, solver=sinkdiv.Auto(max_passes=20_000))
    t = sinkdiv.solve_matrix(*single, eps=0.01, tol=1e-4, solver=SOLVERS[method]())
    assert t.converged
    assert float(t.value) == pytest.approx(float(exact.value), rel=1e-5)


@pytest.mark.parametrize("bad", ["newton", "", None, 3, sinkdiv.Newton])
def test_what_is_no_solver_is_refused(bad):
    with pytest.raises(ValueError, match=r"solver.*sinkdiv\.Auto\(\)"):
        sinkdiv.solve_matrix(uniform(0, 3, 3), eps=0.1, solver=bad)


@pytest.mark.parametrize("n", [20, 600])
def test_costs_may_change_afterwards(method, n):
    """The solution keeps its own: plan, sharp value and bounds are those of the costs that were solved; and the solve
    changes nothing of the caller's."""
    C = squared(130, n, n)
    before = C.clone()
    t = sinkdiv.solve_matrix(C, eps=0.05, tol=1e-6, solver=SOLVERS[method]())
    torch.testing.assert_close(C, before, rtol=0, atol=0)
    plan, sharp, bounds = t.plan(), t.sharp, t.bounds
    C.mul_(3).add_(1)
    torch.testing.assert_close((t.plan(), t.sharp, t.bounds), (plan, sharp, bounds), rtol=0, atol=0)


# The parts.


@pytest.mark.parametrize("shift", [0.0, 0.3, 3.0, 200.0])
def test_stored_kernel_is_right_far_from_where_it_was_formed(dtype, shift):
    """Softmins to both sides by product, or by absorption where products lose something, against the log domain."""
    C, a, b = uniform(140, 30, 20, dtype=dtype), weights(140, 30, dtype=dtype), weights(141, 20, dtype=dtype)
    a[3], b[5] = 0, 0
    problem = Problem(MatrixGeometry(C[None]), a[None], b[None], (0.01,), (INF, INF))
    kernel = StoredKernel(problem)
    eps, rng = problem.eps_column(), np.random.default_rng(140)
    for trial in range(6):
        g = torch.tensor(trial * shift * rng.normal(size=(1, 20)) * 0.01, dtype=dtype)
        h = b.log() + g / eps
        raw_f = kernel.softmin(h, eps, 0)
        expected = problem.geometry.softmin(h, eps, 0)
        k = a.log() + expected / eps
        raw_g, back = kernel.softmin(k, eps, 1), problem.geometry.softmin(k, eps, 1)
        rounding = 100 * torch.finfo(dtype).eps * (1 + float(back.abs().max()))
        torch.testing.assert_close(raw_f[:, a > 0], expected[:, a > 0], rtol=0, atol=rounding)
        torch.testing.assert_close(raw_g[:, b > 0], back[:, b > 0], rtol=0, atol=rounding)


def test_hessian_shift_and_factorisation():
    """(D + δ diag d) s = v by conjugate gradients and by factorisation; D alone has the kernel of the constants, and
    without a row and column its spectrum lies in [min_j Σ_i P_ij P_im/a_i, max c]."""
    C, a, b = uniform(150, 25, 20), weights(150, 25), weights(151, 20)
    problem = Problem(MatrixGeometry(C[None]), a[None], b[None], (0.1,), (INF, INF))
    solution = accelerated(problem, Limits(1e-3, 1000))
    hessian = SemiDualHessian(problem, solution.g, solution.raw_f)
    D = hessian.product(torch.eye(20, dtype=torch.float64)[None])[0]
    c = problem.marginal(solution.g, solution.raw_g, problem.eps_column(), side=1)[0]
    P = problem.geometry.plan_matrix(a.log() + solution.f / 0.1, b.log() + solution.g / 0.1, problem.eps_column())[0]
    torch.testing.assert_close(D, torch.diag(c) - P.T @ (P / P.sum(1, keepdim=True)), rtol=0, atol=1e-14)
    eigenvalues = torch.linalg.eigvalsh(D[:-1, :-1])
    assert float((P[:, :-1] * P[:, -1:] / a[:, None]).sum(0).min()) <= float(eigenvalues[0]) + 1e-15
    assert float(eigenvalues[-1]) <= float(c.max()) + 1e-15
    v = torch.tensor(np.random.default_rng(150).normal(size=(1, 20, 2)))
    v = v - c[None, :, None] * v.sum(1, keepdim=True) / c.sum()
    for delta in (None, torch.tensor([0.01], dtype=torch.float64)):
        system = D + (0.0 if delta is None else float(delta)) * torch.diag(c)
        for factorise in (True, False):
            solved = hessian.solve(v, 1e-12, shift=delta, factorise=factorise)
            torch.testing.assert_close(system @ solved.s[0], v[0], rtol=0, atol=1e-11)
            torch.testing.assert_close((c[:, None] * solved.s[0]).sum(0), torch.zeros(2).double(), rtol=0, atol=1e-12)


def test_passes_are_softmins_and_products(stored, monkeypatch):
    """What is reported is what was called: the kernel's own passes and the final two in the log domain."""
    counted = []
    for name in ("_product", "_formed"):
        original = getattr(StoredKernel, name)
        monkeypatch.setattr(StoredKernel, name, lambda *args, call=original: counted.append(1) or call(*args))
    t = sinkdiv.solve_matrix(squared(160, 40, 40), eps=0.01, tol=1e-8, solver=sinkdiv.Sinkhorn())
    assert t.passes == len(counted) + 2


def test_a_warm_start_is_taken(stored):
    """From the solution itself one step and the verification are enough."""
    C, a, b = squared(170, 40, 40)[None], weights(170, 40)[None], weights(171, 40)[None]
    problem = Problem(MatrixGeometry(C), a, b, (0.01,) * len(a), (INF, INF))
    cold = gibbs.sinkhorn(problem, Limits(1e-8, 2000))
    from sinkdiv.solvers import Start

    warm = gibbs.sinkhorn(replace(problem), Limits(1e-8, 2000), Start(cold.g))
    assert int(warm.passes) == 4 < int(cold.passes)
