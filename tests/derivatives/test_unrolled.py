"""The unrolled derivative (G18, P19): that of the textbook's program, in the memory of its potentials."""

import math

import pytest
import torch

import sinkdiv
from allocations import Largest
from problems import cloud, direction, tight, weights
from sinkdiv.kernels import reference

VALUES = ["entropic", "sharp"]
RHOS = {"balanced": None, "unbalanced": 0.5, "unbalanced pair": (0.3, 2.0)}
EPS = 0.3


def problem(rho=None):
    return cloud(780, 6), cloud(781, 5) + 0.2, weights(780, 6), weights(781, 5, mass=1.0 if rho is None else 1.4)


def textbook(C, a, b, rho, value, iterations):
    """Sinkhorn's scaling iteration with exp and log, and the value of what it has reached."""
    strengths = (math.inf, math.inf) if rho is None else rho if isinstance(rho, tuple) else (rho, rho)
    powers = [1.0 if math.isinf(one) else one / (one + EPS) for one in strengths]
    K = (-C / EPS).exp()
    u, v = torch.ones_like(a), torch.ones_like(b)
    for _ in range(iterations):
        u = (K @ (b * v)) ** -powers[0]
        v = (K.mT @ (a * u)) ** -powers[1]
    P = (a * u)[:, None] * K * (b * v)[None, :]
    if value == "sharp":
        return (P * C).sum()
    dual = -EPS * (P.sum() - a.sum() * b.sum())
    for w, scaling, one in ((a, u, strengths[0]), (b, v, strengths[1])):
        potential = EPS * scaling.log()
        gain = potential if math.isinf(one) else one * (1 - (-potential / one).exp())
        dual = dual + (w * gain).sum()
    return dual


def textbook_divergence(x, y, a, b, rho, value, iterations):
    def between(x, y, a, b):
        C = (x[:, None] - y[None]).square().sum(-1)
        return textbook(C, a, b, rho, value, iterations)

    result = between(x, y, a, b) - between(x, x, a, a) / 2 - between(y, y, b, b) / 2
    return result if rho is None or value == "sharp" else result + EPS / 2 * (a.sum() - b.sum()) ** 2


@pytest.mark.parametrize("iterations", [1, 5, 20])
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("rho", RHOS.values(), ids=RHOS)
def test_equals_the_textbook(rho, value, iterations):
    """Value, gradients in points and weights, and a Hessian-vector product of the debiased value."""
    results = []
    for which in ("library", "textbook"):
        leaves = [tensor.clone().requires_grad_() for tensor in problem(rho)]
        if which == "library":
            loss = sinkdiv.sinkhorn_divergence(
                *leaves,
                eps=EPS,
                rho=rho,
                value=value,
                derivative="unrolled",
                solver=sinkdiv.Unrolled(iterations=iterations),
            )
        else:
            loss = textbook_divergence(*leaves, rho, value, iterations)
        grads = torch.autograd.grad(loss, leaves, create_graph=iterations <= 5)
        results.append([loss.detach(), *(grad.detach() for grad in grads)])
        if iterations <= 5:
            results[-1] += torch.autograd.grad((grads[0] * direction(782, grads[0].shape)).sum(), leaves)
    for i, (found, expected) in enumerate(zip(*results, strict=True)):
        if rho is None and found.ndim == 1 and i <= 4:  # the library scales b to a's mass: up to a constant
            found, expected = found - found.mean(), expected - expected.mean()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("function", [sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence])
@pytest.mark.parametrize("rho", [None, 0.5])
@pytest.mark.parametrize("value", VALUES)
def test_approaches_the_exact_derivative(function, rho, value):
    """The error falls with the iterations, at Sinkhorn's linear rate, to 1e-8."""
    x, y, a, b = problem(rho)
    x.requires_grad_()
    options = {"eps": 0.5, "rho": rho, "value": value}
    (exact,) = torch.autograd.grad(function(x, y, a, b, **options, **tight()), x)
    errors = []
    for iterations in (2, 8, 32, 80):
        loss = function(x, y, a, b, derivative="unrolled", solver=sinkdiv.Unrolled(iterations=iterations), **options)
        errors.append(float((torch.autograd.grad(loss, x)[0] - exact).abs().max()))
    assert errors[0] > 1e-5
    assert errors == sorted(errors, reverse=True) or errors[-2] < 1e-9
    assert errors[-1] < 1e-8


def test_first_order_of_an_unfinished_iteration_is_not_that_of_the_solution():
    """What is returned is the value that the iterations have reached: no certificate, no warning, no tolerance."""
    x, y, a, b = problem()
    options = {"eps": 0.02, "derivative": "unrolled", "solver": sinkdiv.Unrolled(iterations=1)}
    rough = sinkdiv.transport_cost(x, y, a, b, **options)
    exact = sinkdiv.transport_cost(x, y, a, b, eps=0.02, **tight())
    assert float(rough) < float(exact) - 1e-3  # a dual value is below
    same = sinkdiv.transport_cost(x, y, a, b, tol=1e-12, **options)
    torch.testing.assert_close(same, rough, rtol=0, atol=0)


def test_memory_is_that_of_the_potentials(monkeypatch):
    """What is saved for backward grows by O(n + m) an iteration; no tensor is larger than a tile, backward included."""
    n, m, tile = 150, 120, 2000
    monkeypatch.setattr(reference, "TILE_ENTRIES", tile)
    x, y = cloud(783, n).requires_grad_(), cloud(784, m)

    def saved(iterations):
        storages = {}

        def keep(tensor):
            storages[tensor.data_ptr()] = tensor.numel()
            return tensor

        with Largest() as largest:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = sinkdiv.transport_cost(
                    x, y, eps=0.5, value="sharp", derivative="unrolled", solver=sinkdiv.Unrolled(iterations=iterations)
                )
            loss.backward()
        assert largest.entries < n * m / 2
        return sum(storages.values())

    few, many = saved(2), saved(12)
    assert many - few <= 10 * 4 * (n + m)
    assert many < n * m


def test_data_far_from_the_origin_in_float32():
    """The points are centred as for the other derivatives; multiples of 1/64 stay exact at 1e4."""
    x, y = ((cloud(seed, 9, 12) * 64).round().float() / 64 for seed in (785, 786))
    results = []
    for offset in (0.0, 1e4):
        leaf = (x + offset).requires_grad_()
        loss = sinkdiv.sinkhorn_divergence(
            leaf, y + offset, eps=0.5, value="sharp", derivative="unrolled", solver=sinkdiv.Unrolled(iterations=10)
        )
        results.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
    for near, far in zip(*results, strict=True):
        torch.testing.assert_close(far, near, rtol=0, atol=1e-5)


@pytest.mark.parametrize("function", [sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence])
@pytest.mark.parametrize("iterations", [0, -3, 2.0, True, "10", None])
def test_wrong_numbers_of_iterations_are_refused(function, iterations):
    x, y, *_ = problem()
    with pytest.raises(ValueError, match="iterations"):
        function(x, y, eps=EPS, derivative="unrolled", solver=sinkdiv.Unrolled(iterations=iterations))
    with pytest.raises(ValueError, match="iterations"):
        sinkdiv.SinkhornDivergence(eps=EPS, derivative="unrolled", solver=sinkdiv.Unrolled(iterations=iterations))


@pytest.mark.parametrize("derivative", ["auto", "unrolled"])
def test_unrolled_is_what_the_solver_says(derivative):
    """Whether the derivative is named or not."""
    x, y, *_ = problem()
    options = {"eps": EPS, "solver": sinkdiv.Unrolled(iterations=10)}
    assert sinkdiv.transport_cost(x, y, derivative=derivative, **options) == sinkdiv.transport_cost(x, y, **options)


@pytest.mark.parametrize("solve", [sinkdiv.solve, sinkdiv.solve_divergence])
def test_what_is_solved_is_not_unrolled(solve):
    x, y, *_ = problem()
    with pytest.raises(ValueError, match=r"solver.*Unrolled"):
        solve(x, y, eps=EPS, solver=sinkdiv.Unrolled())


@pytest.mark.parametrize("derivative", ["envelope"])
def test_iterations_belong_to_the_unrolled_derivative(derivative):
    x, y, *_ = problem()
    with pytest.raises(ValueError, match="unrolled"):
        sinkdiv.transport_cost(x, y, eps=EPS, derivative=derivative, solver=sinkdiv.Unrolled(iterations=10))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision(dtype):
    """Half inputs are computed in float32, and the gradient is theirs."""
    x, y, *_ = problem()
    leaf = x.to(dtype).requires_grad_()
    options = {"eps": EPS, "value": "sharp", "derivative": "unrolled", "solver": sinkdiv.Unrolled(iterations=10)}
    loss = sinkdiv.sinkhorn_divergence(leaf, y.to(dtype), **options)
    (grad,) = torch.autograd.grad(loss, leaf)
    exact = x.to(dtype).double().requires_grad_()
    (expected,) = torch.autograd.grad(sinkdiv.sinkhorn_divergence(exact, y.to(dtype).double(), **options), exact)
    assert loss.dtype == grad.dtype == dtype
    torch.testing.assert_close(grad.double(), expected, rtol=0, atol=max(1e-6, torch.finfo(dtype).eps))
