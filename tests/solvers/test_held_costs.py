"""Newton's method and L-BFGS between points: the cost matrix is held while they solve, derivatives stream as always."""

import pytest
import torch

import sinkdiv
from problems import TOL, assert_slope, centred, cloud, direction, tight, weights

HOLDERS = [sinkdiv.Newton, sinkdiv.LBFGS]

COSTS = {
    "sqeuclidean": "sqeuclidean",
    "euclidean": "euclidean",
    "power": sinkdiv.PowerCost(1.5),
    "cosine": "cosine",
    "features": sinkdiv.FeatureCost(torch.nn.Tanh(), cost="euclidean"),
    "function": lambda x, y: torch.cdist(x, y),
}


@pytest.fixture(params=HOLDERS, ids=lambda solver: solver.__name__)
def holder(request):
    return request.param


def problem(dtype=torch.float64, batch=None, d=2):
    x, y = cloud(900, 12, d, dtype=dtype, batch=batch), cloud(901, 10, d, dtype=dtype, batch=batch) + 0.2
    return x, y, weights(900, 12, dtype=dtype, batch=batch), weights(901, 10, dtype=dtype, batch=batch)


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("rho", [None, (0.4, 1.5)])
@pytest.mark.parametrize("batch", [None, 3])
def test_the_solution_is_that_of_the_iteration(holder, cost, rho, batch, dtype):
    """Values, potentials, map and certificate, to what the tolerance leaves."""
    inputs, how = problem(dtype, batch), {"eps": 0.05, "rho": rho, "cost": cost}
    found = sinkdiv.solve(*inputs, **how, **tight(dtype, holder))
    expected = sinkdiv.solve(*inputs, **how, **tight(dtype))
    assert bool(torch.as_tensor(found.converged).all())
    atol = 100 * TOL[dtype]
    for name in ("value", "sharp", "f", "g"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=atol)
    torch.testing.assert_close(found.plan(), expected.plan(), rtol=0, atol=atol)
    lower, upper = found.bounds
    assert bool((lower <= expected.value + atol).all())
    assert bool((expected.value - atol <= upper).all())


@pytest.mark.parametrize("function", [sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence])
@pytest.mark.parametrize("value", ["entropic", "sharp"])
@pytest.mark.parametrize("rho", [None, 0.5])
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_gradients_by_differences(holder, function, value, rho, cost):
    """In points and weights, of fourth order."""
    tensors = cloud(600, 6), cloud(601, 5) + 0.2, weights(600, 6), weights(601, 5)

    def loss(*inputs):
        return function(*inputs, eps=0.2, cost=cost, rho=rho, value=value, **tight(solver=holder))

    along_weights = centred if rho is None else direction
    directions = [make(902 + k, t.shape) for k, (make, t) in enumerate(zip([direction] * 2, tensors, strict=False))]
    directions += [along_weights(904 + k, t.shape) for k, t in enumerate(tensors[2:])]
    assert_slope(loss, tensors, directions)


def test_second_derivatives_are_those_of_the_iteration(holder):
    """A Hessian-vector product in the points, by the same passes from another solution."""

    def product(solver):
        x, y, a, b = problem()
        x.requires_grad_()
        value = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.1, **tight(solver=solver))
        (grad,) = torch.autograd.grad(value, x, create_graph=True)
        return torch.autograd.grad((grad * direction(906, grad.shape)).sum(), x)[0]

    torch.testing.assert_close(product(holder), product(sinkdiv.Sinkhorn), rtol=0, atol=1e-7)


def test_small_eps_takes_fewer_passes_than_the_iteration():
    """At 2e-4 of the squared diameter: to a marginal error of 1e-9 before the iteration comes to 1e-6."""
    x, y = cloud(910, 40, 2), cloud(911, 40, 2)
    newton = sinkdiv.solve(x, y, eps=4e-4, tol=1e-9, solver=sinkdiv.Newton(max_passes=20_000))
    plain = sinkdiv.solve(x, y, eps=4e-4, tol=1e-6, solver=sinkdiv.Sinkhorn(max_passes=20_000))
    assert newton.converged
    torch.testing.assert_close(newton.value, plain.value, rtol=1e-7, atol=0)
    assert newton.passes < plain.passes


def test_a_sample_with_itself_has_one_potential(holder):
    x, _, a, _ = problem()
    t = sinkdiv.solve(x, x, a, a, eps=0.1, **tight(solver=holder))
    assert torch.equal(t.f, t.g)


def test_far_points_are_refused_by_name(holder):
    far = torch.tensor([[0.0], [1e25]])
    with pytest.raises(ValueError, match=r"x and y.*overflow"):
        sinkdiv.solve(far, far + 1, eps=1.0, solver=holder())


def test_watched_and_stopped(holder):
    seen = []
    x, y, a, b = problem()
    t = sinkdiv.solve(x, y, a, b, eps=0.01, tol=1e-9, solver=holder(callback=seen.append))
    assert seen[-1].unfinished == 0
    assert t.history[-1][1] <= 1e-9


@pytest.mark.parametrize("solver", [sinkdiv.Newton, sinkdiv.LBFGS])
def test_autocast_changes_nothing(solver):
    """The matrix products of a climb keep their dtype, as those of derivatives do."""
    x, y = cloud(170, 9), cloud(171, 7)
    expected = sinkdiv.transport_cost(x.float(), y.float(), eps=0.1, solver=solver())
    with torch.autocast("cpu", torch.bfloat16):
        found = sinkdiv.transport_cost(x.float(), y.float(), eps=0.1, solver=solver())
    assert torch.equal(found, expected)
