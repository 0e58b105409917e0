"""A batch whose problems have regularisations of their own is a loop over its problems, in everything that is asked."""

import pytest
import torch

import sinkdiv
from problems import cloud, direction, tight, weights
from sinkdiv import LBFGS, Auto, Newton, Sinkhorn, Unrolled

EPS = (0.05, 0.2, 0.01)
CLOSE = {"rtol": 1e-7, "atol": 1e-9}


def samples():
    x, y = cloud(500, 9, batch=3), cloud(501, 7, batch=3) + 0.1
    a, b = weights(500, 9, batch=3), weights(501, 7, batch=3)
    return [one.requires_grad_() for one in (x, y, a, b)]


def each(inputs):
    return [[one[k].detach().requires_grad_() for one in inputs] for k in range(len(EPS))]


def assert_a_loop(function, inputs, **options):
    """Values and gradients; ``function(*inputs, eps=...)`` returns one tensor, batched like its inputs."""
    found = function(*inputs, eps=torch.tensor(EPS, dtype=torch.float64), **options)
    loop = each(inputs)
    expected = [function(*one, eps=eps, **options) for one, eps in zip(loop, EPS, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), **CLOSE)
    way = direction(502, found.shape[1:])
    grads = torch.autograd.grad((found * way).sum(), inputs)
    for one, own, eps_grads in zip(
        zip(*[grad.unbind() for grad in grads], strict=True),
        expected,
        loop,
        strict=True,
    ):
        for grad, wanted in zip(one, torch.autograd.grad((own * way).sum(), eps_grads), strict=True):
            torch.testing.assert_close(grad, wanted, **CLOSE)


@pytest.mark.parametrize("rho", [None, 0.5, (0.3, 1.0)])
@pytest.mark.parametrize("value", ["entropic", "sharp"])
def test_losses(route, value, rho):
    assert_a_loop(sinkdiv.sinkhorn_divergence, samples(), value=value, rho=rho, **tight())
    assert_a_loop(sinkdiv.transport_cost, samples(), value=value, rho=rho, **tight())


@pytest.mark.parametrize("value", ["entropic", "sharp"])
@pytest.mark.parametrize("rho", [None, 0.5])
def test_unrolled(route, value, rho):
    assert_a_loop(sinkdiv.sinkhorn_divergence, samples(), value=value, rho=rho, solver=Unrolled(iterations=5))


@pytest.mark.parametrize("member", ["f", "g", "plan", "barycentric_map", "apply"])
def test_plans(member):
    def of(x, y, a, b, *, eps):
        found = getattr(sinkdiv.solve(x, y, a, b, eps=eps, **tight()), member)
        if member == "apply":
            return found(y)
        return found() if callable(found) else found

    assert_a_loop(of, samples())


@pytest.mark.parametrize("solver", [Auto, Sinkhorn, Newton, LBFGS])
def test_matrices(solver):
    C, a, b = cloud(507, 9, 7, batch=3), weights(503, 9, batch=3), weights(504, 7, batch=3)

    def value(C, a, b, *, eps):
        # Derivatives in hard weights are defined up to a constant, which depends on the way that a solver took.
        a, b = (one - (one.mean(-1, keepdim=True) - one.detach().mean(-1, keepdim=True)) for one in (a, b))
        return sinkdiv.solve_matrix(C, a, b, eps=eps, tol=1e-10, solver=solver(max_passes=20_000)).sharp

    assert_a_loop(value, [one.requires_grad_() for one in (C, a, b)])


@pytest.mark.parametrize("rho", [None, 0.5])
def test_certificates(route, rho):
    x, y, a, b = (one.detach() for one in samples())
    eps = torch.tensor(EPS, dtype=torch.float64)
    found = sinkdiv.solve_divergence(x, y, a, b, eps=eps, rho=rho, tol=1e-2)
    alone = [sinkdiv.solve_divergence(x[k], y[k], a[k], b[k], eps=EPS[k], rho=rho, tol=1e-2) for k in range(3)]
    for solved, several in ((found, alone), (found.ab, [one.ab for one in alone])):
        for side in (0, 1):
            expected = torch.stack([one.bounds[side] for one in several])
            torch.testing.assert_close(solved.bounds[side], expected, **CLOSE)
    for side in (0, 1):
        expected = torch.stack([one.ab.unregularised_bounds[side] for one in alone])
        torch.testing.assert_close(found.ab.unregularised_bounds[side], expected, **CLOSE)
    assert found.ab.passes.tolist() == [one.ab.passes for one in alone]


def test_second_derivatives(route):
    """Hessian-vector products, by native passes and by composition."""
    for value in ("entropic", "sharp"):
        inputs = samples()
        steps = [direction(505 + k, one.shape) for k, one in enumerate(inputs)]
        steps[2], steps[3] = steps[2] - steps[2].mean(1, keepdim=True), steps[3] - steps[3].mean(1, keepdim=True)

        def product(inputs, steps, eps, value=value):
            loss = sinkdiv.sinkhorn_divergence(*inputs, eps=eps, value=value, **tight()).sum()
            grads = torch.autograd.grad(loss, inputs, create_graph=True)
            along = sum((grad * step).sum() for grad, step in zip(grads, steps, strict=True))
            return torch.autograd.grad(along, inputs)

        found = product(inputs, steps, torch.tensor(EPS, dtype=torch.float64))
        for k, (own, eps) in enumerate(zip(each(inputs), EPS, strict=True)):
            expected = product(own, [step[k] for step in steps], eps)
            for one, other in zip(found, expected, strict=True):
                scale = float(other.abs().max())
                torch.testing.assert_close(one[k], other, rtol=1e-5, atol=1e-6 * scale)
