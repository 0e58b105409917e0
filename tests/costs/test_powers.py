"""Costs |x−y|ᵖ for any p > 0: values by SciPy, derivatives by finite differences, what holds at coincident points."""

import pickle

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

import sinkdiv
from problems import array, assert_slope, centred, cloud, costs, direction, primal, slope, tight, weights
from sinkdiv.costs import COSTS, power
from sinkdiv.geometry import CloudGeometry

POWERS = [0.7, 1.5, 3.0]
RHOS = {"balanced": None, "unbalanced pair": (0.3, 2.0)}
WAYS = {
    "entropic": {},
    "sharp": {"value": "sharp"},
    "unrolled": {"value": "sharp", "derivative": "unrolled", "solver": sinkdiv.Unrolled(iterations=4)},
}


def apart(d=2):
    """Two clouds whose points, of one and of both, are at least 0.15 from each other, and their weights."""
    rng = np.random.default_rng(40 + d)
    points = rng.random((11, d))
    points[:, 0] = 0.2 * rng.permutation(11) + 0.05 * points[:, 0]
    x, y = torch.tensor(points).split([6, 5])
    return x, y, weights(40, 6), weights(41, 5)


# The cost itself.


@pytest.mark.parametrize("d", [1, 3, 12])
@pytest.mark.parametrize("p", [*POWERS, 4.0])
def test_values_are_powers_of_the_distance(p, d):
    x, y, cost = cloud(1, 7, d)[None], cloud(2, 6, d)[None], power(p)
    expected = torch.tensor(costs(x[0], y[0], "euclidean")) ** p
    torch.testing.assert_close(cost.matrix(x, y)[0], expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(cost.smooth_matrix(x, y)[0], expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("d", [1, 3, 12])
@pytest.mark.parametrize("p", [*POWERS, 4.0])
def test_derivatives_of_the_cost_by_differences(p, d):
    """Gradient, tangent, and the gradient's tangent; the smooth matrix to third order."""
    cost, (x, y, *_) = power(p), (one[None] for one in apart(d))
    dx, dy, w = direction(3, x.shape), direction(4, y.shape), direction(5, (1, 6, 5))

    def moved(t):
        return x + t * dx, y + t * dy

    def total(t):
        return (w * cost.matrix(*moved(t))).sum()

    def of_rows(t):
        return (w * cost.matrix(x + t * dx, y)).sum()

    step = 1e-4 / d
    assert float((cost.gradient(w, x, y) * dx).sum()) == pytest.approx(slope(of_rows, step), rel=1e-7, abs=1e-7)
    assert float((w * cost.tangent(x, y, dx, dy)).sum()) == pytest.approx(slope(total, step), rel=1e-7, abs=1e-7)
    change = slope(lambda t: (cost.gradient(w, *moved(t)) * dx).sum(), step)
    assert float((cost.gradient_tangent(w, x, y, dx, dy) * dx).sum()) == pytest.approx(change, rel=1e-6, abs=1e-6)

    def smooth(t):
        return (w * cost.smooth_matrix(x + t * dx, y + t * dy)).sum()

    derivative, t = smooth, torch.zeros((), dtype=torch.float64)
    for order in range(3):
        lower, derivative = derivative, torch.func.grad(derivative)
        expected = slope(lambda s, lower=lower: lower(t + s), 1e-3 / d)
        assert float(derivative(t)) == pytest.approx(expected, rel=1e-4, abs=1e-4), order


@pytest.mark.parametrize("p", [0.7, 1.0, 1.5, 2.0, 3.0, 4.0])
def test_derivatives_at_coincident_points(dtype, p):
    """Never NaN; zero, as they are where p is larger than their order, but 2I of the squared cost and its power."""
    cost = power(p)
    x = cloud(6, 4, dtype=dtype)[None]
    w, still = torch.eye(4, dtype=dtype)[None], torch.zeros_like(x)
    dx = direction(7, x.shape).to(dtype)
    assert torch.equal(cost.gradient(w, x, x), still)
    assert torch.equal((w * cost.tangent(x, x, dx, still)).sum(), still.sum())
    expected = 2 * dx if p == 2 else still
    torch.testing.assert_close(cost.gradient_tangent(w, x, x, dx, still), expected, rtol=1e-6, atol=1e-6)

    def along(t):
        return (w * cost.smooth_matrix(x + t * dx, x)).sum()

    t = torch.zeros((), dtype=dtype)
    first, second = torch.func.grad(along), torch.func.grad(torch.func.grad(along))
    assert float(first(t)) == pytest.approx(0, abs=1e-5)
    assert float(second(t)) == pytest.approx(float(2 * dx.square().sum()) if p == 2 else 0, rel=1e-5, abs=1e-5)
    if p == 4:  # a polynomial: Σ_i t⁴|dx_i|⁴
        fourth = torch.func.grad(torch.func.grad(second))
        assert float(fourth(t)) == pytest.approx(24 * float(dx.square().sum(-1).square().sum()), rel=1e-5)


@pytest.mark.parametrize("p", [0.01, 0.2, 0.7, 1.5])
@pytest.mark.parametrize("distance", [1e-24, 1e-22, 1e-20, 1e-18, 1e-10])
def test_derivatives_between_points_that_almost_coincide_are_finite(p, distance):
    """In float32, whose squares leave its range."""
    x = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
    y, cost = x + torch.tensor([0.0, distance]), power(p)
    w, dx, dy = torch.ones(1, 2, 2), torch.ones_like(x), torch.zeros_like(y)
    assert cost.matrix(x, y).isfinite().all()
    assert cost.gradient(w, x, y).isfinite().all()
    assert cost.tangent(x, y, dx, dy).isfinite().all()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(cost.smooth_matrix(x, y).sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("d", [3, 40])
@pytest.mark.parametrize("p", POWERS)
def test_close_points_keep_their_digits_in_float32(p, d):
    """Distances are sums of differences in every dimension: a relative error of a few units in the last place."""
    x = cloud(8, 6, d, dtype=torch.float32)
    y = x + 1e-3 * cloud(9, 6, d, dtype=torch.float32)
    expected = torch.tensor(costs(x, y, "euclidean")) ** p
    found = power(p).matrix(x[None], y[None])[0].double()
    torch.testing.assert_close(found, expected, rtol=4e-6, atol=0)


# Solutions.


@pytest.mark.parametrize("rho", RHOS.values(), ids=RHOS)
@pytest.mark.parametrize("p", POWERS)
def test_plan_is_optimal_for_its_cost(route, p, rho):
    """The plan is exp((f+g−C)/ε) of SciPy's costs, has the marginals, and its primal value is the dual one."""
    x, y, a, b = apart()
    t = sinkdiv.solve(x, y, a, b, eps=0.1, cost=sinkdiv.PowerCost(p), rho=rho, **tight())
    C = costs(x, y, "euclidean") ** p
    P = array(a)[:, None] * array(b) * np.exp((array(t.f)[:, None] + array(t.g) - C) / 0.1)
    np.testing.assert_allclose(array(t.plan()), P, rtol=1e-9)
    value = primal(P, C, array(a), array(b), 0.1, rho)
    assert float(t.value) == pytest.approx(value, abs=1e-9)
    assert float(t.sharp) == pytest.approx((P * C).sum(), abs=1e-9)
    lower, upper = t.bounds
    assert float(lower) - 1e-9 <= value <= float(upper) + 1e-9


@pytest.mark.parametrize("p", POWERS)
def test_points_and_their_cost_matrix_are_one_problem(dtype, p):
    """In batches and both dtypes; up to p = 2 the divergence is positive."""
    x, y = cloud(10, 9, 3, batch=2, dtype=dtype), cloud(11, 8, 3, batch=2, dtype=dtype)
    found = sinkdiv.solve(x, y, eps=0.05, cost=sinkdiv.PowerCost(p), **tight(dtype))
    C = torch.stack([torch.tensor(costs(*pair, "euclidean") ** p) for pair in zip(x, y, strict=True)])
    expected = sinkdiv.solve_matrix(C, eps=0.05, **tight())
    atol = 1e-9 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found.value.double(), expected.value, rtol=0, atol=atol)
    torch.testing.assert_close(found.plan().double(), expected.plan(), rtol=0, atol=atol)
    if p <= 2:
        assert (sinkdiv.sinkhorn_divergence(x, y, eps=0.05, cost=sinkdiv.PowerCost(p)) > 0).all()


@pytest.mark.parametrize("p", POWERS)
def test_potentials_at_new_points(p):
    """f(z) = −ε log Σ_j b_j exp((g_j − |z−y_j|ᵖ)/ε)."""
    x, y, a, b = apart()
    t = sinkdiv.solve(x, y, a, b, eps=0.1, cost=sinkdiv.PowerCost(p), **tight())
    z = cloud(12, 4)
    C = torch.tensor(costs(z, y, "euclidean") ** p)
    expected = -0.1 * ((t.g - C) / 0.1 + b.log()).logsumexp(-1)
    torch.testing.assert_close(t.potentials_at(z), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("p", "name"), [(1, "euclidean"), (2.0, "sqeuclidean")])
def test_named_powers_are_the_named_costs(p, name):
    x, y, a, b = apart()
    found = sinkdiv.solve(x, y, a, b, blur=0.2, reach=1.0, cost=sinkdiv.PowerCost(p))
    expected = sinkdiv.solve(x, y, a, b, blur=0.2, reach=1.0, cost=name)
    assert torch.equal(found.value, expected.value)
    assert torch.equal(found.f, expected.f)
    assert power(p) is COSTS[name]


@pytest.mark.parametrize("p", POWERS)
def test_blur_and_reach_are_lengths(p):
    """ε = p·blurᵖ and ρ = p·reachᵖ; scaled points at scaled lengths cost sᵖ times as much."""
    x, y, a, b = apart()
    cost = sinkdiv.PowerCost(p)
    by_length = sinkdiv.solve(x, y, a, b, blur=0.3, reach=2.0, cost=cost, **tight()).value
    in_units = sinkdiv.solve(x, y, a, b, eps=p * 0.3**p, rho=p * 2.0**p, cost=cost, **tight()).value
    scaled = sinkdiv.solve(3 * x, 3 * y, a, b, blur=0.9, reach=6.0, cost=cost, **tight()).value
    torch.testing.assert_close(in_units, by_length, rtol=1e-9, atol=0)
    torch.testing.assert_close(scaled, 3**p * by_length, rtol=1e-8, atol=0)


@pytest.mark.parametrize("p", [0.7, 1.5])
def test_divergence_becomes_a_generalised_energy_distance(p):
    """As ε → ∞: half of 2E|x−y|ᵖ − E|x−x'|ᵖ − E|y−y'|ᵖ (F19, §1; Székely and Rizzo 2013 for 0 < p < 2)."""
    x, y, a, b = apart()
    found = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=1e5, cost=sinkdiv.PowerCost(p), **tight())
    A, B = array(a), array(b)
    xy, xx, yy = (costs(*pair, "euclidean") ** p for pair in ((x, y), (x, x), (y, y)))
    assert float(found) == pytest.approx(A @ xy @ B - (A @ xx @ A + B @ yy @ B) / 2, abs=1e-5)


@pytest.mark.parametrize("p", POWERS)
def test_points_on_a_line_approach_the_sorted_coupling(route, p):
    """For p ≥ 1 the monotone coupling is optimal as ε → 0; for p < 1 SciPy's assignment is asked (both exact)."""
    x, y = cloud(13, 12, 1), cloud(14, 12, 1)
    t = sinkdiv.solve(x, y, eps=1e-2, cost=sinkdiv.PowerCost(p), **tight())
    C = costs(x, y, "euclidean") ** p
    rows, columns = linear_sum_assignment(C)
    best = C[rows, columns].mean()
    if p >= 1:
        assert best == pytest.approx((np.abs(np.sort(array(x), 0) - np.sort(array(y), 0)) ** p).mean(), abs=1e-12)
    assert best - 1e-9 <= float(t.sharp) <= best + 1e-2 * np.log(12)


# Derivatives of values.


@pytest.mark.parametrize("rho", RHOS.values(), ids=RHOS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("function", [sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence])
@pytest.mark.parametrize("p", POWERS)
def test_gradients_by_differences(function, p, way, rho):
    """In points and weights, of the entropic and the sharp value, and unrolled."""
    along = (direction(20, (6, 2)), direction(21, (5, 2)), centred(22, (6,)), centred(23, (5,)))

    def loss(*inputs):
        return function(*inputs, eps=0.2, cost=sinkdiv.PowerCost(p), rho=rho, **{**tight(), **way})

    assert_slope(loss, apart(), along, step=5e-4)


@pytest.mark.parametrize("rho", RHOS.values(), ids=RHOS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("function", [sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence])
@pytest.mark.parametrize("p", POWERS)
def test_hessian_products_by_differences_of_gradients(function, p, way, rho):
    """Of the divergence too, whose self terms hold every point twice: those pairs cost 0 wherever the point moves."""
    along = (direction(24, (6, 2)), direction(25, (5, 2)), centred(26, (6,)), centred(27, (5,)))
    probe = tuple(direction(28 + k, one.shape) for k, one in enumerate(along[:2]))

    def slope_along(t, graph=False):
        inputs = [(one + t * step).requires_grad_() for one, step in zip(apart(), along, strict=True)]
        value = function(*inputs, eps=0.2, cost=sinkdiv.PowerCost(p), rho=rho, **{**tight(), **way})
        grads = torch.autograd.grad(value, inputs[:2], create_graph=graph)
        return sum((grad * one).sum() for grad, one in zip(grads, probe, strict=True)), inputs

    found, inputs = slope_along(0.0, graph=True)
    seconds = torch.autograd.grad(found, inputs)
    product = sum(float((one * step).sum()) for one, step in zip(seconds, along, strict=True))
    expected = slope(lambda t: slope_along(t)[0].detach(), 5e-4)
    assert product == pytest.approx(expected, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("p", [0.7, 1.5, 3.0])
@pytest.mark.parametrize("value", ["entropic", "sharp"])
def test_equal_clouds_have_finite_derivatives(dtype, value, p):
    """Every pair (i, i) of the cross term coincides: the value is 0, and derivatives of two orders are finite."""
    x = cloud(30, 6, dtype=dtype)
    z = x.clone().requires_grad_()
    loss = sinkdiv.sinkhorn_divergence(z, x, eps=0.2, cost=sinkdiv.PowerCost(p), value=value, **tight(dtype))
    (gradient,) = torch.autograd.grad(loss, z, create_graph=True)
    (second,) = torch.autograd.grad((gradient * direction(31, x.shape).to(dtype)).sum(), z)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(gradient.detach(), torch.zeros_like(x), rtol=0, atol=1e-4)
    assert second.isfinite().all()


@pytest.mark.parametrize("p", POWERS)
def test_potentials_and_maps_by_differences(p):
    along = (direction(32, (6, 2)), direction(33, (5, 2)), centred(34, (6,)), centred(35, (5,)))

    def total(*inputs):
        t = sinkdiv.solve(*inputs, eps=0.2, cost=sinkdiv.PowerCost(p), **tight())
        return (t.f * torch.arange(6)).sum() + (t.plan() ** 2).sum() + t.barycentric_map().square().sum()

    assert_slope(total, apart(), along, step=5e-4, atol=1e-6)


# Between features, as a part of modules, and refusals.


@pytest.mark.parametrize("p", [1, 1.5])
def test_a_power_between_features(p):
    module = nn.Sequential(nn.Linear(2, 4), nn.Tanh()).double()
    x, y, a, b = apart()
    cost = sinkdiv.FeatureCost(module, cost=sinkdiv.PowerCost(p))
    found = sinkdiv.sinkhorn_divergence(x, y, a, b, blur=0.3, cost=cost, **tight())
    expected = sinkdiv.sinkhorn_divergence(
        module(x), module(y), a, b, blur=0.3, cost=sinkdiv.PowerCost(p), **tight()
    )  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert repr(cost) == f"FeatureCost(Sequential, cost=PowerCost({p!r}))"


def test_modules_with_a_power_pickle_and_start_warm():
    x, y, a, b = apart()
    criterion = sinkdiv.SinkhornDivergence(blur=0.2, cost=sinkdiv.PowerCost(1.5), solver=sinkdiv.Auto(warm_start=True))
    assert "cost=PowerCost(1.5)" in repr(criterion)
    expected = criterion(x, y, a, b)
    torch.testing.assert_close(criterion(x, y, a, b), expected, rtol=1e-3, atol=0)
    torch.testing.assert_close(pickle.loads(pickle.dumps(criterion))(x, y, a, b), expected, rtol=0, atol=0)


def test_geometries_of_different_powers_do_not_resemble_each_other():
    """A potential of one is no start for the other."""
    x, y, *_ = (one[None] for one in apart())
    first, again, other = (CloudGeometry(x, y, power(p)) for p in (1.5, 1.5, 3.0))
    assert first.resembles(again)
    assert not first.resembles(other)


@pytest.mark.parametrize("exponent", [0, -1.0, float("inf"), float("nan"), True, "2", None])
def test_exponents_that_are_none_are_refused(exponent):
    with pytest.raises(ValueError, match="exponent"):
        sinkdiv.PowerCost(exponent)


@pytest.mark.parametrize("options", [{"blur": 1e-3}, {"eps": 1.0, "reach": 1e3}])
def test_lengths_beyond_the_numbers_are_refused_by_name(options):
    """0.001 to the power of 300 is 0 in float64, 1000 to the power of 300 infinite."""
    x, y, a, b = apart()
    with pytest.raises(ValueError, match="blur" if "blur" in options else "reach"):
        sinkdiv.solve(x, y, a, b, cost=sinkdiv.PowerCost(300), **options)
