"""The passes behind second derivatives: the specification against autograd and finite differences in float64, and a
geometry's sides against each other. The tiles are so small that every problem needs several."""

import math

import pytest
import torch

from problems import cloud, direction, slope
from sinkdiv.costs import find_cost
from sinkdiv.geometry import CloudGeometry, MatrixGeometry
from sinkdiv.kernels import of_points, reference

B, N, M = 2, 11, 13

#: Sums of some hundred terms of size 1 to 10, whose rounding is below 1e-15 of it.
ROUNDING = {"rtol": 0, "atol": 1e-12}

costs = pytest.mark.parametrize("name", ["sqeuclidean", "euclidean"])
dimensions = pytest.mark.parametrize("d", [1, 3, 9])  # differences up to 8, products above


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(reference, "TILE_ENTRIES", 64)


class Inputs:
    """Points, a plan that is nobody's optimum, and directions to move all of it along."""

    def __init__(self, d):
        self.x, self.y = cloud(900, N, d, batch=B), cloud(901, M, d, batch=B)
        self.eps = torch.tensor([[0.5], [0.8]], dtype=torch.float64)
        self.u, self.h = direction(902, (B, N)), direction(903, (B, M))
        self.s, self.t = direction(904, (B, N)), direction(905, (B, M))
        self.dx, self.dy = direction(907, (B, N, d)), direction(908, (B, M, d))

    def moved(self, step):
        return self.x + step * self.dx, self.y + step * self.dy, self.u + step * self.s, self.h + step * self.t

    def weighted(self, C):
        """P_ij (s_i + t_j + log P_ij)."""
        P = self.plan(C)
        return P * (self.s[:, :, None] + self.t[:, None] + P.log())

    def plan(self, C):
        return (self.u[:, :, None] + self.h[:, None] - C / self.eps[:, :, None]).exp()


def dense(x, y, name):
    squares = (x[:, :, None] - y[:, None]).square().sum(-1)
    return squares if name == "sqeuclidean" else squares.sqrt()


@costs
@dimensions
def test_weighted_plan_and_its_sums_are_those_of_the_dense_product(name, d):
    i = Inputs(d)
    C = dense(i.x, i.y, name)
    expected = i.weighted(C)
    for pairs in (reference.PointReductions(i.x, i.y, find_cost(name)), reference.MatrixReductions(C)):
        torch.testing.assert_close(pairs.weighted_plan(i.u, i.h, i.eps, i.s, i.t), expected, **ROUNDING)
        rows, columns = pairs.weighted_marginals(i.u, i.h, i.eps, i.s, i.t)
        torch.testing.assert_close(rows, expected.sum(2), **ROUNDING)
        torch.testing.assert_close(columns, expected.sum(1), **ROUNDING)


@pytest.mark.parametrize("native", [True, False])
def test_forbidden_pairs_have_no_weight(native, request):
    """0 log 0 = 0."""
    if not native:
        request.getfixturevalue("without_native")
    i = Inputs(1)
    C = dense(i.x, i.y, "sqeuclidean")
    allowed = i.weighted(C)
    C[:, ::2, ::3] = torch.inf
    expected = torch.where(C.isinf(), 0.0, allowed)
    geometry = MatrixGeometry(C)
    torch.testing.assert_close(geometry.reductions(0).weighted_plan(i.u, i.h, i.eps, i.s, i.t), expected, **ROUNDING)
    rows, columns = geometry.weighted_marginals(i.u, i.h, i.eps, i.s, i.t)
    torch.testing.assert_close(rows, expected.sum(2), **ROUNDING)
    torch.testing.assert_close(columns, expected.sum(1), **ROUNDING)


@costs
@dimensions
@pytest.mark.parametrize("eps", [0.5, math.inf])
def test_products_with_costs_are_dense_ones(name, d, eps):
    """(P∘C) v and <P, C>, also with ε = ∞, where P_ij = exp(u_i + h_j)."""
    i = Inputs(d)
    i.eps[0] = eps
    C, v = dense(i.x, i.y, name), direction(911, (B, M, 3))
    costs = i.plan(C) * C
    for pairs in (reference.PointReductions(i.x, i.y, find_cost(name)), reference.MatrixReductions(C)):
        torch.testing.assert_close(pairs.cost_product(i.u, i.h, i.eps, v), costs @ v, **ROUNDING)
        torch.testing.assert_close(pairs.plan_cost(i.u, i.h, i.eps), costs.sum((1, 2)), **ROUNDING)


def test_products_with_costs_that_are_forbidden():
    """0·∞ = 0 in a plan that avoids forbidden pairs. With ε = ∞ a plan avoids none, and its mass there costs ∞."""
    i = Inputs(1)
    C, v = dense(i.x, i.y, "sqeuclidean"), direction(912, (B, M, 3)).abs()
    allowed = i.plan(C) * C
    C[:, ::2, ::3] = torch.inf
    costs = torch.where(C.isinf(), 0.0, allowed)
    pairs = reference.MatrixReductions(C)
    torch.testing.assert_close(pairs.cost_product(i.u, i.h, i.eps, v), costs @ v, **ROUNDING)
    torch.testing.assert_close(pairs.plan_cost(i.u, i.h, i.eps), costs.sum((1, 2)), **ROUNDING)
    infinite = torch.full_like(i.eps, math.inf)
    assert torch.equal(pairs.cost_product(i.u, i.h, infinite, v).isinf().any(-1), C.isinf().any(-1))
    assert pairs.plan_cost(i.u, i.h, infinite).isposinf().all()
    i.h[:, ::3] = -math.inf
    expected = ((i.u[:, :, None] + i.h[:, None]).exp() * torch.where(C.isinf(), 0.0, C)).sum((1, 2))
    torch.testing.assert_close(pairs.plan_cost(i.u, i.h, infinite), expected, **ROUNDING)


@costs
@dimensions
def test_weighted_gradient_is_that_of_autograd(name, d):
    i = Inputs(d)
    x = i.x.clone().requires_grad_()
    C = dense(x, i.y, name)
    (expected,) = torch.autograd.grad((i.weighted(C).detach() * C).sum(), x)
    pairs = reference.PointReductions(i.x, i.y, find_cost(name))
    actual = pairs.weighted_gradient(i.u, i.h, i.eps, i.s, i.t)
    torch.testing.assert_close(actual, expected, **ROUNDING)


@costs
@dimensions
def test_tangent_marginals_are_those_of_autograd(name, d):
    i = Inputs(d)
    C, tangent = torch.autograd.functional.jvp(lambda x, y: dense(x, y, name), (i.x, i.y), (i.dx, i.dy))
    terms = i.plan(C) * tangent
    rows, columns = reference.PointReductions(i.x, i.y, find_cost(name)).tangent_marginals(i.u, i.h, i.eps, i.dx, i.dy)
    torch.testing.assert_close(rows, terms.sum(2), **ROUNDING)
    torch.testing.assert_close(columns, terms.sum(1), **ROUNDING)


@costs
@dimensions
def test_gradient_tangent_is_the_derivative_of_the_gradient(name, d):
    """By a central difference of fourth order, whose own error is below 1e-8 at the default step."""
    i = Inputs(d)
    weights = direction(909, i.x.shape)

    def gradient(step):
        x, y, u, h = i.moved(step)
        return (weights * reference.PointReductions(x, y, find_cost(name)).plan_gradient(u, h, i.eps)).sum()

    actual = reference.PointReductions(i.x, i.y, find_cost(name)).gradient_tangent(
        i.u, i.h, i.eps, i.s, i.t, i.dx, i.dy
    )
    assert float((weights * actual).sum()) == pytest.approx(slope(gradient), rel=1e-7)


@pytest.mark.parametrize("native", [True, False])
@dimensions
def test_coincident_points_of_the_distance_do_not_move_each_other(native, d, request):
    """Where the distance has no derivative its tangents are 0, so a pair that coincides adds what no pair adds."""
    if not native:
        request.getfixturevalue("without_native")
    i = Inputs(d)
    i.y[:, 0] = i.x[:, 0]
    pairs = of_points(i.x[:, :1], i.y[:, :1], find_cost("euclidean"))
    own = i.u[:, :1], i.h[:, :1], i.eps
    moves = i.dx[:, :1], i.dy[:, :1]
    assert all((sums == 0).all() for sums in pairs.tangent_marginals(*own, *moves))
    assert (pairs.weighted_gradient(*own, i.s[:, :1], i.t[:, :1]) == 0).all()
    assert (pairs.gradient_tangent(*own, i.s[:, :1], i.t[:, :1], *moves) == 0).all()


BOTH = (True, True)


@costs
@dimensions
def test_sides_of_a_geometry(route, name, d):
    """Side 1 is side 0 of the transposed problem, and ``u``, ``s`` and ``dx`` belong to the rows on both."""
    i = Inputs(d)
    cost = find_cost(name)
    geometry, transposed = CloudGeometry(i.x, i.y, cost), CloudGeometry(i.y, i.x, cost)
    plan, turned = (i.u, i.h, i.eps), (i.h, i.u, i.eps)
    for one, other in (
        *zip(geometry.weighted_gradients(*plan, i.s, i.t, BOTH),
             reversed(transposed.weighted_gradients(*turned, i.t, i.s, BOTH)), strict=True),
        (geometry.gradient_tangent(*plan, i.s, i.t, i.dx, i.dy, 1),
         transposed.gradient_tangent(*turned, i.t, i.s, i.dy, i.dx, 0)),
        *zip(geometry.tangent_marginals(*plan, i.dx, i.dy),
             reversed(transposed.tangent_marginals(*turned, i.dy, i.dx)), strict=True),
        *zip(geometry.weighted_marginals(*plan, i.s, i.t),
             reversed(transposed.weighted_marginals(*turned, i.t, i.s)), strict=True),
    ):  # fmt: skip
        torch.testing.assert_close(one, other, **ROUNDING)
    expected = reference.PointReductions(i.x, i.y, cost)
    for one, other in (
        (geometry.weighted_gradients(*plan, i.s, i.t, BOTH)[0], expected.weighted_gradient(*plan, i.s, i.t)),
        (geometry.gradient_tangent(*plan, i.s, i.t, i.dx, i.dy, 0),
         expected.gradient_tangent(*plan, i.s, i.t, i.dx, i.dy)),
    ):  # fmt: skip
        torch.testing.assert_close(one, other, **ROUNDING)


@costs
@dimensions
@pytest.mark.parametrize("side", [0, 1])
def test_the_gradient_and_its_tangent_agree_on_both_sides(name, d, side):
    """The derivative of `gradients` along a motion of points and potentials, by a central difference."""
    i, weights = Inputs(d), direction(910, (B, (N, M)[side], d))

    def gradient(step):
        x, y, u, h = i.moved(step)
        gradients = CloudGeometry(x, y, find_cost(name)).gradients(u, h, i.eps, (True, True))
        return (weights * gradients[side]).sum()

    geometry = CloudGeometry(i.x, i.y, find_cost(name))
    actual = geometry.gradient_tangent(i.u, i.h, i.eps, i.s, i.t, i.dx, i.dy, side)
    assert float((weights * actual).sum()) == pytest.approx(slope(gradient), rel=1e-7)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_blocks_of_rows_cover_all_and_fill_the_tiles_of_their_device(monkeypatch, device):
    """In order, each row once; no block larger than a tile, and only the last one smaller than it may be."""
    monkeypatch.setattr(reference, "TILE_ENTRIES", 64)
    monkeypatch.setattr(reference, "ACCELERATOR_TILE_ENTRIES", 1000)
    most = 64 if device == "cpu" else 1000
    for batch, rows, columns in ((1, 10, 7), (3, 100, 5), (2, 30, 600)):
        blocks = list(reference.row_blocks(batch, rows, columns, torch.device(device)))
        assert [row for block in blocks for row in range(rows)[block]] == list(range(rows))
        sizes = [block.stop - block.start for block in blocks]
        assert all(size == 1 or size * batch * columns <= most for size in sizes)
        assert all((size + 1) * batch * columns > most for size in sizes[:-1])
