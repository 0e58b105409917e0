"""The one normalisation: equal masses and centred points, the same for solvers and for derivatives."""

import torch

import sinkdiv
from problems import cloud, weights
from sinkdiv.geometry import MatrixGeometry
from sinkdiv.measures import equalised


def test_masses_become_equal_and_proportions_stay():
    a, b = weights(0, 5, batch=3, mass=2.0), weights(1, 4, batch=3, mass=0.5)
    scaled = equalised(b, a)
    torch.testing.assert_close(scaled.sum(-1), a.sum(-1), rtol=1e-15, atol=0)
    torch.testing.assert_close(scaled / scaled.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True), rtol=1e-15, atol=0)


def test_the_factor_has_no_derivative():
    """One would be in a direction in which a balanced problem does not exist."""
    a, b = weights(0, 5)[None].requires_grad_(), weights(1, 4)[None].requires_grad_()
    grads = torch.autograd.grad(equalised(b, a).sum(), (a, b), allow_unused=True)
    assert grads[0] is None
    torch.testing.assert_close(grads[1], torch.full_like(b, float((a.sum() / b.sum()).detach())))


def test_the_solver_is_given_what_derivatives_are_of():
    """To the last bit: weights of the solved problem, and its points, against the function that derivatives use."""
    x, y, a = cloud(2, 5) + 3, cloud(3, 4) - 1, weights(2, 5)
    b = weights(3, 4) * (1 + 1e-9)
    t = sinkdiv.solve(x, y, a, b, eps=0.1)
    problem = t._solved.problem
    reductions = problem.geometry.differentiable(problem.eps_column())
    expected = reductions.normalised((a[None], b[None], x[None], y[None]), equal_masses=True)
    found = problem.a, problem.b, problem.geometry.x, problem.geometry.y
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_soft_marginals_and_matrices_stay_as_they_are():
    a, b, C = weights(0, 5)[None], weights(1, 4, mass=3.0)[None], cloud(4, 5, 4)[None]
    reductions = MatrixGeometry(C).differentiable(torch.ones(1, 1))
    for one, other in zip(reductions.normalised((a, b, C), equal_masses=False), (a, b, C), strict=True):
        assert one is other
