"""The cosine cost: values by SciPy, lengths as chords, derivatives through the directions by finite differences."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

import sinkdiv
from problems import array, assert_slope, centred, cloud, costs, direction, primal, slope, tight, weights

RHOS = {"balanced": None, "unbalanced pair": (0.3, 2.0)}
WAYS = {
    "entropic": {},
    "sharp": {"value": "sharp"},
    "unrolled": {"value": "sharp", "derivative": "unrolled", "solver": sinkdiv.Unrolled(iterations=4)},
}


def problem(d=3, dtype=torch.float64, batch=None):
    """Vectors of many directions and of lengths between 0.1 and 10."""
    x, y = cloud(50, 6, d, batch=batch) - 0.5, cloud(51, 5, d, batch=batch) - 0.4
    x, y = (10 ** (2 * cloud(52, len(z[0]) if batch else len(z), 1) - 1) * z for z in (x, y))
    return x.to(dtype), y.to(dtype), weights(50, 6, dtype=dtype, batch=batch), weights(51, 5, dtype=dtype, batch=batch)


@pytest.mark.parametrize("rho", RHOS.values(), ids=RHOS)
@pytest.mark.parametrize("d", [1, 3, 12])
def test_plan_is_optimal_for_scipys_costs(route, d, rho):
    x, y, a, b = problem(d)
    t = sinkdiv.solve(x, y, a, b, eps=0.1, cost="cosine", rho=rho, **tight())
    C = costs(x, y, "cosine")
    P = array(a)[:, None] * array(b) * np.exp((array(t.f)[:, None] + array(t.g) - C) / 0.1)
    np.testing.assert_allclose(array(t.plan()), P, rtol=1e-9, atol=1e-14)
    value = primal(P, C, array(a), array(b), 0.1, rho)
    assert float(t.value) == pytest.approx(value, abs=1e-9)
    assert float(t.sharp) == pytest.approx((P * C).sum(), abs=1e-9)
    lower, upper = t.bounds
    assert float(lower) - 1e-9 <= value <= float(upper) + 1e-9


@pytest.mark.parametrize("d", [3, 40])
def test_batches_are_their_matrices(dtype, d):
    x, y, a, b = problem(d, dtype, batch=3)
    found = sinkdiv.solve(x, y, a, b, eps=0.05, cost="cosine", **tight(dtype))
    C = torch.stack([torch.tensor(costs(*pair, "cosine")) for pair in zip(x, y, strict=True)])
    a, b = (w / w.sum(-1, keepdim=True) for w in (a, b))
    expected = sinkdiv.solve_matrix(
        C, *(w.double() / w.double().sum(-1, keepdim=True) for w in (a, b)), eps=0.05, **tight()
    ).value
    torch.testing.assert_close(found.value.double(), expected, rtol=0, atol=1e-9 if dtype == torch.float64 else 1e-5)
    z = cloud(53, 4, d, batch=3, dtype=dtype) - 0.5
    potential = found.potentials_at(z)
    for k in range(3):
        alone = sinkdiv.solve(x[k], y[k], a[k], b[k], eps=0.05, cost="cosine", **tight(dtype))
        atol = 1e-8 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(potential[k], alone.potentials_at(z[k]), rtol=0, atol=atol)


def test_lists_of_clouds():
    problems = [problem(3), tuple(one[:4] for one in problem(3))]
    problems[1] = (*problems[1][:2], *(w / w.sum() for w in problems[1][2:]))
    found = sinkdiv.sinkhorn_divergence(*map(list, zip(*problems, strict=True)), eps=0.1, cost="cosine", **tight())
    expected = [sinkdiv.sinkhorn_divergence(*one, eps=0.1, cost="cosine", **tight()) for one in problems]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-10)


def test_lengths_of_vectors_do_not_matter(dtype):
    """Down to lengths whose squares leave the range of the dtype."""
    x, y, a, b = problem(3, dtype)
    small, large = (1e-30, 1e30) if dtype == torch.float32 else (1e-200, 1e200)
    expected = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.1, cost="cosine", **tight(dtype))
    found = sinkdiv.sinkhorn_divergence(small * x, large * y, a, b, eps=0.1, cost="cosine", **tight(dtype))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-6)


def test_nearly_parallel_vectors_keep_their_digits(dtype):
    """An angle θ costs 1 − cos θ = 2 sin²(θ/2), where 1 − x·y would be rounded to 0."""
    theta = 1e-3 if dtype == torch.float32 else 1e-7
    x, y = torch.tensor([[2.0, 0.0]], dtype=dtype), torch.tensor([[math.cos(theta), math.sin(theta)]], dtype=dtype)
    t = sinkdiv.solve(x, y, eps=0.1, cost="cosine")
    assert float(t.sharp) == pytest.approx(2 * math.sin(theta / 2) ** 2, rel=1e-3)


def test_blur_and_reach_are_chords():
    """ε = blur² and ρ = reach²: exp(−c/ε) is the Gaussian of that standard deviation in the chord |x̂−ŷ|."""
    x, y, a, b = problem()
    by_length = sinkdiv.solve(x, y, a, b, blur=0.3, reach=1.5, cost="cosine", **tight())
    in_units = sinkdiv.solve(x, y, a, b, eps=0.09, rho=2.25, cost="cosine", **tight())
    (eps,) = by_length._solved.problem.eps
    assert eps == pytest.approx(0.09, rel=1e-15)
    torch.testing.assert_close(by_length.value, in_units.value, rtol=1e-12, atol=0)
    chords = torch.cdist(x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True))
    density = by_length.plan() / (a[:, None] * b * torch.exp((by_length.f[:, None] + by_length.g) / eps))
    torch.testing.assert_close(density, torch.exp(-0.5 * (chords / 0.3) ** 2), rtol=1e-9, atol=0)


def test_approaches_the_assignment():
    """As ε → 0; SciPy's assignment of the same costs."""
    x, y = cloud(54, 10, 3) - 0.5, cloud(55, 10, 3) - 0.5
    C = costs(x, y, "cosine")
    best = C[linear_sum_assignment(C)].mean()
    found = float(sinkdiv.solve(x, y, eps=1e-2, cost="cosine", **tight()).sharp)
    assert best - 1e-9 <= found <= best + 1e-2 * math.log(10)


@pytest.mark.parametrize("rho", RHOS.values(), ids=RHOS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("function", [sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence])
def test_first_and_second_derivatives_by_differences(function, way, rho):
    """In vectors, not directions, and weights."""
    along = (direction(56, (6, 3)), direction(57, (5, 3)), centred(58, (6,)), centred(59, (5,)))
    x, y, a, b = problem()
    x, y = (z / z.norm(dim=1, keepdim=True) * (1 + cloud(60, len(z), 1)) for z in (x, y))  # no steep short vectors

    def loss(*inputs):
        return function(*inputs, eps=0.2, cost="cosine", rho=rho, **{**tight(), **way})

    assert_slope(loss, (x, y, a, b), along)

    def gradient(t, graph=False):
        leaf = (x + t * along[0]).requires_grad_()
        moved = (one + t * step for one, step in zip((y, a, b), along[1:], strict=True))
        others = [one.requires_grad_() for one in moved]
        (grad,) = torch.autograd.grad(loss(leaf, *others), leaf, create_graph=graph)
        return (grad * direction(61, grad.shape)).sum(), [leaf, *others]

    total, inputs = gradient(0.0, graph=True)
    seconds = torch.autograd.grad(total, inputs)
    found = sum(float((one * step).sum()) for one, step in zip(seconds, along, strict=True))
    assert found == pytest.approx(slope(lambda t: gradient(t)[0].detach()), abs=1e-6)


def test_gradient_is_across_the_vector():
    """Lengths have no say."""
    x, y, a, b = (one.requires_grad_() for one in problem())
    loss = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.1, cost="cosine", value="sharp", **tight())
    for points, grad in zip((x, y), torch.autograd.grad(loss, (x, y)), strict=True):
        along = (points * grad).sum(1).abs() / (points.norm(dim=1) * grad.norm(dim=1))
        assert float(along.max()) < 1e-12


def test_potentials_at_new_points_by_differences():
    x, y, a, b = problem()
    t = sinkdiv.solve(x, y, a, b, eps=0.2, cost="cosine", **tight())
    z = cloud(62, 4, 3) - 0.5
    C = torch.tensor(costs(z, y, "cosine"))
    expected = -0.2 * ((t.g - C) / 0.2 + b.log()).logsumexp(-1)
    torch.testing.assert_close(t.potentials_at(z), expected, rtol=0, atol=1e-9)
    assert_slope(lambda z: (t.potentials_at(z) * torch.arange(4)).sum(), [z], [direction(63, z.shape)], step=1e-4)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(half):
    x, y, *_ = problem(dtype=half)
    found = sinkdiv.sinkhorn_divergence(x, y, eps=0.1, cost="cosine")
    expected = sinkdiv.sinkhorn_divergence(x.float(), y.float(), eps=0.1, cost="cosine")
    assert found.dtype == half
    assert torch.equal(found, expected.to(half))


def test_cosine_between_features():
    """The features as vectors; their lengths are chords too."""
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).double()
    x, y, a, b = problem()
    cost = sinkdiv.FeatureCost(module, cost="cosine")
    options = {"blur": 0.3, "reach": 1.0, "value": "sharp", **tight()}
    parameters = list(module.parameters())
    losses = [
        sinkdiv.sinkhorn_divergence(x, y, a, b, cost=cost, **options),
        sinkdiv.sinkhorn_divergence(module(x), module(y), a, b, cost="cosine", **options),
    ]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-12)
    grads = [torch.autograd.grad(loss, parameters) for loss in losses]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-9)
    assert repr(cost) == "FeatureCost(Sequential, cost='cosine')"
    with pytest.raises(ValueError, match="module of the cost"):
        sinkdiv.solve(x, y, eps=0.1, cost=sinkdiv.FeatureCost(nn.Threshold(1e9, 0.0), cost="cosine"))


@pytest.mark.parametrize("function", [sinkdiv.solve, sinkdiv.sinkhorn_divergence, sinkdiv.SinkhornDivergence])
def test_a_zero_vector_is_refused_by_name(function):
    x, y, *_ = problem()

    def call(x, y):
        if function is sinkdiv.SinkhornDivergence:
            return function(eps=0.1, cost="cosine")(x, y)
        return function(x, y, eps=0.1, cost="cosine")

    zero = torch.zeros(1, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^x holds a zero vector \(index 6\)"):
        call(torch.cat([x, zero]), y)
    with pytest.raises(ValueError, match=r"^y holds a zero vector \(index 0\)"):
        call(x, torch.cat([zero, y]))
    with pytest.raises(ValueError, match="points holds a zero vector"):
        sinkdiv.solve(x, y, eps=0.1, cost="cosine").potentials_at(zero)


def test_a_map_of_directions_is_refused():
    """The mean of directions is no direction; P y is at hand for any y."""
    x, y, a, b = problem()
    t = sinkdiv.solve(x, y, a, b, eps=0.1, cost="cosine", **tight())
    with pytest.raises(ValueError, match="apply"):
        t.barycentric_map()
    torch.testing.assert_close(t.apply(y), t.plan() @ y, rtol=0, atol=1e-12)
