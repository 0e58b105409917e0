"""Intervals for ε = 0 contain what linear programmes, sorting and closed forms say (mathematics, §4.2)."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog, minimize

import sinkdiv
from problems import array, cloud, costs, direction, primal, tight, weights
from sinkdiv.certificates import unregularised_bounds
from sinkdiv.costs import find_cost
from sinkdiv.geometry import CloudGeometry
from sinkdiv.solvers import Problem

COSTS = ["sqeuclidean", "euclidean", "cosine", sinkdiv.PowerCost(1.5)]


def matrix_of(x, y, cost):
    return costs(x, y, cost) if isinstance(cost, str) else costs(x, y, "euclidean") ** cost.exponent


def linear_programme(C, a, b):
    """min <P,C> with P1 = a and Pᵀ1 = b, where +∞ forbids a pair, by SciPy's HiGHS in float64."""
    n, m = C.shape
    a, b = a / a.sum(), b / b.sum()
    marginals = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    allowed = np.isfinite(C.ravel())
    solved = linprog(np.where(allowed, C.ravel(), 0), A_eq=marginals, b_eq=np.concatenate([a, b]),
                     bounds=[(0, None if free else 0) for free in allowed])  # fmt: skip
    assert solved.status == 0
    return solved.fun


def quietly(function, *inputs, **options):
    """What a call returns, whether or not it converged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sinkdiv.ConvergenceWarning)
        return function(*inputs, **options)


def assert_contains(bounds, exact, slack=1e-12):
    """``slack`` is what the reference may be off."""
    lower, upper = bounds
    assert lower.dtype == upper.dtype == torch.float64
    assert float(lower) <= exact + slack
    assert exact - slack <= float(upper)


def problem(seed, dtype, n=9, m=8):
    """Two clouds with unequal weights, of which some are zero."""
    a, b = weights(seed, n - 1, dtype=dtype), weights(seed + 1, m - 2, dtype=dtype)
    x, y = cloud(seed, n, dtype=dtype), cloud(seed + 1, m, dtype=dtype) + 0.2
    return x, y, torch.cat([a.new_zeros(1), a]), torch.cat([b, b.new_zeros(2)])


@pytest.mark.parametrize("cost", COSTS, ids=str)
@pytest.mark.parametrize("eps", [1.0, 0.1, 0.003])
def test_contains_the_linear_programme(dtype, route, cost, eps):
    """At any tolerance, also where the solve stopped early."""
    for seed, (tol, max_passes) in enumerate([(1e-1, 2000), (1e-3, 2000), (1e-4, 20)]):
        x, y, a, b = problem(80 + seed, dtype)
        t = quietly(sinkdiv.solve, x, y, a, b, eps=eps, cost=cost, tol=tol, solver=sinkdiv.Auto(max_passes=max_passes))
        # The programme has its own 1e-9, and masses of float32 weights agree to 1e-7 only.
        assert_contains(
            t.unregularised_bounds,
            float(a.double().sum()) * linear_programme(matrix_of(x, y, cost), array(a), array(b)),
            1e-9,
        )


@pytest.mark.parametrize("cost", COSTS, ids=str)
def test_shrinks_with_eps(dtype, cost):
    """Around SciPy's assignment. The plan costs at most ε log n more than the best one, because no entropy relative to
    uniform weights is larger; a c-transform lies at most ε log n below the softmin that a dual value of at least the
    optimum is made of."""
    x, y = cloud(90, 20, 3, dtype=dtype), cloud(91, 20, 3, dtype=dtype)
    C = matrix_of(x, y, cost)
    exact = C[linear_sum_assignment(C)].mean()
    for eps in (1.0, 0.1, 0.01):
        lower, upper = sinkdiv.solve(x, y, eps=eps, cost=cost, **tight(dtype)).unregularised_bounds
        assert_contains((lower, upper), exact)
        assert exact - float(lower) <= eps * math.log(20) + 1e-4
        assert float(upper) - exact <= eps * math.log(20) + 1e-4
    assert float(upper - lower) < 0.15 * exact


def test_points_on_a_line():
    """Sorted points are paired; 300 of them, at an ε where the lower end is exact to a percent."""
    x, y = cloud(92, 300, 1), cloud(93, 300, 1) + 0.5
    exact = float((x.sort(0)[0] - y.sort(0)[0]).square().mean())
    lower, upper = sinkdiv.solve(x, y, eps=1e-3).unregularised_bounds
    assert_contains((lower, upper), exact)
    assert float(lower) > 0.99 * exact
    assert float(upper) < 1.01 * exact


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_includes_the_rounding_of_float32_data(offset):
    """Points matched to their neighbours in a wide cloud: the digits that decide are the last ones."""
    spread = cloud(94, 12, dtype=torch.float32) * 100
    x, y = spread + offset, spread + 0.01 * cloud(95, 12, dtype=torch.float32) + offset
    exact = costs(x, y)[np.arange(12), np.arange(12)].mean()
    t = quietly(sinkdiv.solve, x, y, eps=1e-3, solver=sinkdiv.Auto(max_passes=500))
    assert_contains(t.unregularised_bounds, exact)


@pytest.mark.parametrize("mass", [0.2, 5.0])
def test_masses_other_than_one(mass):
    x, y, a, b = problem(96, torch.float64)
    t = sinkdiv.solve(x, y, mass * a, mass * b, eps=0.01)
    assert_contains(t.unregularised_bounds, mass * linear_programme(costs(x, y), array(a), array(b)), 1e-8)


def test_a_cloud_and_itself():
    """It costs nothing to stay."""
    x = cloud(97, 15)
    lower, upper = sinkdiv.solve(x, x, eps=1e-3).unregularised_bounds
    assert_contains((lower, upper), 0.0)
    assert float(lower) == pytest.approx(0, abs=1e-3)


def test_each_problem_of_a_batch():
    x, y = cloud(98, 8, batch=3), cloud(99, 9, batch=3)
    a, b = weights(98, 8, batch=3), weights(99, 9, batch=3)
    lower, upper = sinkdiv.solve(x, y, a, b, eps=0.02).unregularised_bounds
    assert lower.shape == upper.shape == (3,)
    for k in range(3):
        assert_contains((lower[k], upper[k]), linear_programme(costs(x[k], y[k]), array(a[k]), array(b[k])), 1e-9)


def test_matrices_with_forbidden_pairs(dtype):
    """Two blocks of half the mass each, with nothing between them: the interval of the programme's lower end holds; the
    upper end is +∞ only where exact marginals would need a forbidden pair."""
    C = cloud(100, 8, 8, dtype=dtype)
    C[:4, 4:] = C[4:, :4] = math.inf
    w = torch.full((8,), 1 / 8, dtype=dtype)
    exact = linear_programme(array(C), array(w), array(w))
    lower, upper = sinkdiv.solve_matrix(C, eps=0.02, tol=1e-4).unregularised_bounds
    assert_contains((lower, upper), exact, 1e-7 if dtype == torch.float32 else 1e-9)
    assert exact - float(lower) < 0.05
    some = C.clone()
    some[4:, :4] = 3.0
    lower, upper = sinkdiv.solve_matrix(some, eps=0.02, tol=1e-4).unregularised_bounds
    assert_contains((lower, upper), linear_programme(array(some), array(w), array(w)), 1e-7)


@pytest.mark.parametrize("rho", [0.3, (0.2, 4.0)])
def test_soft_marginals_of_separate_pairs(rho):
    """Where only (i, i) is allowed, each pair is a problem of two points: its mass p has log p = (ρ₁ log a + ρ₂ log b −
    c)/(ρ₁+ρ₂)."""
    first, second = rho if isinstance(rho, tuple) else (rho, rho)
    c, a, b = array(cloud(101, 6, 1))[:, 0], array(weights(101, 6)), array(weights(102, 6, mass=1.7))
    p = np.exp((first * np.log(a) + second * np.log(b) - c) / (first + second))
    exact = primal(np.diag(p), np.diag(c), a, b, 0.0, (first, second))
    C = torch.full((6, 6), math.inf, dtype=torch.float64)
    C.diagonal().copy_(torch.tensor(c))
    for eps in (0.1, 1e-3):
        t = sinkdiv.solve_matrix(C, torch.tensor(a), torch.tensor(b), eps=eps, rho=rho, **tight())
        lower, upper = t.unregularised_bounds
        assert_contains((lower, upper), exact)
    assert float(upper - lower) < 1e-3 * exact


@pytest.mark.parametrize("rho", [0.3, (0.2, 4.0)])
@pytest.mark.parametrize("eps", [0.3, 0.01])
def test_soft_marginals_of_clouds(route, dtype, rho, eps):
    """SciPy's bounded minimiser of the primal problem, whose answer is never below the optimum and 1e-6 above it."""
    strengths = rho if isinstance(rho, tuple) else (rho, rho)
    x, y = cloud(103, 5, dtype=dtype), cloud(104, 4, dtype=dtype)
    a, b = weights(103, 5, dtype=dtype), weights(104, 4, mass=1.5, dtype=dtype)
    C, A, B = costs(x, y), array(a), array(b)

    def value(P):
        P = P.reshape(5, 4)
        rows, columns = P.sum(1), P.sum(0)
        slopes = C + strengths[0] * np.log(rows / A)[:, None] + strengths[1] * np.log(columns / B)
        return primal(P, C, A, B, 0.0, strengths), slopes.ravel()

    start = np.outer(A, B).ravel()
    solved = minimize(value, start, jac=True, method="L-BFGS-B", bounds=[(1e-12, None)] * 20,
                      options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-10})  # fmt: skip
    t = sinkdiv.solve(x, y, a, b, eps=eps, rho=rho, tol=1e-3)
    lower, upper = t.unregularised_bounds
    assert_contains((lower, upper), solved.fun, 1e-6)
    if eps == 0.01:
        assert float(upper - lower) < 0.05 * solved.fun


def test_holds_no_graph():
    x, y, a, b = (one.requires_grad_() for one in problem(105, torch.float64))
    assert not any(end.requires_grad for end in sinkdiv.solve(x, y, a, b, eps=0.1).unregularised_bounds)


def some_problem(rho=(math.inf, math.inf), eps=0.05):
    """A problem, and potentials that are nobody's optimum."""
    x, y = cloud(106, 7, batch=1), cloud(107, 6, batch=1)
    a, b = weights(106, 7, batch=1), weights(107, 6, batch=1)
    geometry = CloudGeometry(x, y, find_cost("sqeuclidean"))
    return Problem(geometry, a, b, (eps,) * len(a), rho), 0.2 * direction(108, (1, 6))


def test_the_upper_end_is_the_cost_of_a_rounded_plan():
    """From potentials far from optimal, whose plan misses much of b: Altschuler, Weed and Rigollet (2017), Algorithm 2,
    in NumPy."""
    problem, g = some_problem()
    C, a, b = costs(problem.geometry.x[0], problem.geometry.y[0]), array(problem.a[0]), array(problem.b[0])
    P = b * np.exp((array(g[0]) - C) / problem.eps[0])
    P *= (a / P.sum(1))[:, None]
    P *= np.minimum(b / P.sum(0), 1)
    rows, columns = a - P.sum(1), b - P.sum(0)
    assert rows.sum() > 0.2  # much is missing
    P += np.outer(rows, columns) / columns.sum()
    _, upper = unregularised_bounds(problem, g)
    assert float(upper) == pytest.approx((P * C).sum(), rel=1e-12)


@pytest.mark.parametrize("rho", [math.inf, 0.3])
def test_the_lower_end_ignores_a_constant_in_the_potential(rho):
    """It is a dual value at the best constant, also where that is not free."""
    problem, g = some_problem((rho, 2 * rho))
    expected, _ = unregularised_bounds(problem, g)
    for constant in (-3.0, 0.7):
        torch.testing.assert_close(unregularised_bounds(problem, g + constant)[0], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rho", [math.inf, 0.3])
def test_points_without_weight_have_no_say(rho):
    """Whatever their potential: the interval is that of the problem without them."""
    problem, g = some_problem((rho, rho))
    expected = unregularised_bounds(problem, g)
    x, y = (torch.cat([points, points[:, :2] + 0.05], 1) for points in (problem.geometry.x, problem.geometry.y))
    a, b = (torch.cat([w, torch.zeros_like(w[:, :2])], 1) for w in (problem.a, problem.b))
    more = Problem(CloudGeometry(x, y, find_cost("sqeuclidean")), a, b, problem.eps, problem.rho)
    for potential in (-2.0, 2.0):
        found = unregularised_bounds(more, torch.cat([g, g.new_full((1, 2), potential)], 1))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
