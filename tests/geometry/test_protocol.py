"""What every geometry promises: one set of cases, passed by all of them, the package's own and one it does not know."""

import math
from dataclasses import dataclass

import pytest
import torch

from problems import cloud, direction, slope, weights
from ring import RingGeometry
from sinkdiv.costs import COSTS, power
from sinkdiv.geometry import CloudGeometry, Geometry, MatrixGeometry, RoundedPlan

#: Relative rounding of reductions, beside the size of an exponent: 20 of ε, in which sums of some 10 terms are taken.
ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-4}


@dataclass(frozen=True)
class Made:
    """A geometry, its costs as a matrix in float64, and the tensors that they are made of by a function."""

    geometry: Geometry
    C: torch.Tensor
    tensors: tuple[torch.Tensor, ...] = ()
    costs: object = None


def points(cost, d, batch, n, m, dtype):
    x, y = (cloud(seed, count, d, batch=batch).to(dtype) for seed, count in ((300, n), (301, m)))

    def costs(x, y):
        return cost.smooth_matrix(x, y)

    return Made(CloudGeometry(x, y, cost), costs(x.double(), y.double()), (x, y), costs)


def matrix(batch, n, m, dtype):
    C = torch.rand(batch, n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(302)).to(dtype)
    return Made(MatrixGeometry(C), C.double(), (C,), lambda C: C)


def forbidding(batch, n, m, dtype):
    C = matrix(batch, n, m, dtype).C.clone().to(dtype)
    if n > 1 and m > 1:
        C[:, 0, 1:] = torch.inf
    return Made(MatrixGeometry(C), C.double())


def ring(batch, n, m, dtype):
    """As many columns as rows, whatever is asked for."""
    geometry = RingGeometry(torch.linspace(1.0, 2.0, batch, dtype=torch.float64), n, dtype=dtype)
    return Made(geometry, geometry.exact().matrix())


KINDS = {
    "sqeuclidean": lambda *size: points(COSTS["sqeuclidean"], 3, *size),
    "euclidean": lambda *size: points(COSTS["euclidean"], 3, *size),
    "high dimension": lambda *size: points(COSTS["sqeuclidean"], 20, *size),
    "power": lambda *size: points(power(1.5), 2, *size),
    "matrix": matrix,
    "forbidden pairs": forbidding,
    "unknown to the package": ring,
}


@pytest.fixture(params=[(3, 8, 5), (2, 1, 1), (1, 1, 9)], ids=str)
def size(request):
    return request.param


@pytest.fixture(params=["streamed", "tiled"])
def kernels(request):
    """The native kernels without costs that are kept, and the reference in tiles of a few rows."""
    request.getfixturevalue(request.param)


@pytest.fixture(params=list(KINDS))
def made(request, size, dtype, kernels):
    return KINDS[request.param](*size, dtype)


@dataclass(frozen=True)
class Operands:
    """Scaled logarithms of a plan, with a weight of zero on each side where there are several; ε differs by problem."""

    u: torch.Tensor
    h: torch.Tensor
    eps: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor

    @classmethod
    def of(cls, geometry):
        batch, n, m = geometry.shape
        a, b = (weights(seed, count, batch=batch) for seed, count in ((303, n), (304, m)))
        if n > 2 and m > 2:
            a[:, 2], b[:, 1] = 0.0, 0.0
        f, g = (0.1 * direction(seed, (batch, count)) for seed, count in ((305, n), (306, m)))
        eps = torch.linspace(0.1, 0.3, batch, dtype=torch.float64)[:, None]
        numbers = (a.log() + f / eps, b.log() + g / eps, eps, a, b)
        return cls(*(one.to(geometry.dtype) for one in numbers))


def plan(made, o):
    """P in float64, from the numbers as they are."""
    u, h, eps = o.u.double(), o.h.double(), o.eps.double()
    return torch.exp(u[:, :, None] + h[:, None, :] - made.C / eps[:, :, None])


def finite(C):
    return torch.where(torch.inf == C, 0.0, C)


def assert_close(found, expected):
    assert found.dtype in ROUNDING
    scale = max(1.0, float(expected[expected.isfinite()].abs().max())) if expected.isfinite().any() else 1.0
    torch.testing.assert_close(found.double(), expected, rtol=ROUNDING[found.dtype], atol=ROUNDING[found.dtype] * scale)


@pytest.mark.parametrize("side", [0, 1])
def test_softmin_and_ctransform(made, side):
    """−ε log Σ_j exp(h_j − C_ij/ε), with and without a guess, and min_j C_ij − g_j."""
    o, C = Operands.of(made.geometry), made.C if side == 0 else made.C.mT
    h = (o.h if side == 0 else o.u).double()
    eps = o.eps.double()
    expected = -eps * (h[:, None, :] - C / eps[:, :, None]).logsumexp(-1)
    reachable = expected.isfinite()  # a row whose pairs are all forbidden cannot have weight
    given = o.h if side == 0 else o.u
    found = made.geometry.softmin(given, o.eps, side)
    assert_close(found[reachable], expected[reachable])
    near = made.geometry.softmin(given, o.eps, side, found + 0.01 * o.eps)
    assert_close(near[reachable], expected[reachable])
    g = torch.where(h == -torch.inf, h, eps * h).to(given.dtype)
    lowest = (C - g.double()[:, None, :]).amin(-1)
    assert_close(made.geometry.ctransform(g, side)[lowest.isfinite()], lowest[lowest.isfinite()])


@pytest.mark.parametrize("side", [0, 1])
def test_products(made, side):
    """P v and (P∘C) v; a forbidden pair has no plan, and costs nothing."""
    o = Operands.of(made.geometry)
    P = plan(made, o)
    P, costs = (P, P * finite(made.C)) if side == 0 else (P.mT, (P * finite(made.C)).mT)
    v = direction(307, (P.shape[0], P.shape[2], 2)).to(made.geometry.dtype)
    assert_close(made.geometry.plan_product(o.u, o.h, o.eps, v, side), P @ v.double())
    assert_close(made.geometry.cost_product(o.u, o.h, o.eps, v, side), costs @ v.double())


def test_sums(made):
    """Marginals, the cost of the plan, and the sums of P (s ⊕ t + log P)."""
    o = Operands.of(made.geometry)
    P = plan(made, o)
    for found, expected in zip(made.geometry.marginals(o.u, o.h, o.eps), (P.sum(2), P.sum(1)), strict=True):
        assert_close(found, expected)
    assert_close(made.geometry.plan_cost(o.u, o.h, o.eps), (P * finite(made.C)).sum((1, 2)))
    s, t = (direction(seed, like.shape).to(like.dtype) for seed, like in ((308, o.u), (309, o.h)))
    weighted = P * (s.double()[:, :, None] + t.double()[:, None, :]) + torch.xlogy(P, P)
    found = made.geometry.weighted_marginals(o.u, o.h, o.eps, s, t)
    for one, expected in zip(found, (weighted.sum(2), weighted.sum(1)), strict=True):
        assert_close(one, expected)


def test_a_plan_without_costs(made):
    """At ε = ∞ the plan is the product of its marginals, whatever the costs."""
    o = Operands.of(made.geometry)
    infinite = torch.full_like(o.eps, torch.inf)
    product = o.u.double().exp()[:, :, None] * o.h.double().exp()[:, None, :]
    expected = torch.where(product > 0, product * made.C, 0.0).sum((1, 2))
    assert_close(made.geometry.plan_cost(o.u, o.h, infinite), expected)


def test_energy_of_a_rounded_plan(made):
    """The sum itself where pairs are visited; an upper bound, at most the entropy of mixing above it, elsewhere."""
    geometry, o = made.geometry, Operands.of(made.geometry)
    u, h = o.u - o.a.log(), o.h - o.b.log()
    u, h = torch.where(o.a > 0, u, -torch.inf), torch.where(o.b > 0, h, -torch.inf)
    p, q = (direction(seed, like.shape).abs().to(like.dtype) for seed, like in ((310, o.a), (311, o.b)))
    p, q = torch.where(o.a > 0, p, 0.0), torch.where(o.b > 0, q, 0.0)
    found = geometry.energy(RoundedPlan(o.a, o.b, u, h, o.eps, p, q))
    a, b, p, q, eps = (one.double() for one in (o.a, o.b, p, q, o.eps))
    kept = torch.exp(u.double()[:, :, None] + h.double()[:, None, :] - made.C / eps[:, :, None])
    density = kept + p[:, :, None] * q[:, None, :]
    energy = torch.where(density > 0, density * made.C, 0.0) + eps[:, :, None] * torch.xlogy(density, density)
    expected = (a[:, :, None] * energy * b[:, None, :]).nan_to_num(0.0, posinf=torch.inf).sum((1, 2))
    if geometry.dense is not None:
        assert_close(found, expected)
        return
    parts = [(a[:, :, None] * one * b[:, None, :]).sum((1, 2)) for one in (kept, density - kept)]
    share = parts[0] / (parts[0] + parts[1])
    mixing = -eps[:, 0] * (parts[0] + parts[1]) * (torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share))
    assert bool((found >= expected - 1e-12).all())
    assert bool((found <= expected + mixing + 1e-12).all())


def test_spread_and_exactness(made):
    """The spread bounds the range of the costs; the exact geometry is in float64 and agrees to the rounding of ours."""
    geometry, o = made.geometry, Operands.of(made.geometry)
    allowed = made.C.masked_fill(torch.inf == made.C, math.nan).flatten(1)
    costs = [row[~row.isnan()] for row in allowed]
    ranges = torch.stack([row.max() - row.min() for row in costs])
    assert bool((geometry.spread().double() >= ranges * (1 - 1e-6)).all())
    exact = geometry.exact()
    assert exact.dtype == torch.float64
    assert exact.shape == geometry.shape
    wide = exact.marginals(o.u.double(), o.h.double(), o.eps.double())
    for one, other in zip(geometry.marginals(o.u, o.h, o.eps), wide, strict=True):
        assert_close(one, other)


def test_capabilities_agree_with_the_reductions(made):
    """Where there is a dense form, it is the costs and the plan; where there are points, they are as many as rows."""
    geometry, o = made.geometry, Operands.of(made.geometry)
    if geometry.dense is not None:
        assert_close(geometry.dense.costs(), made.C)
        assert_close(geometry.dense.plan_matrix(o.u, o.h, o.eps), plan(made, o))
        which = torch.arange(geometry.shape[0]) % 2 == 0
        assert_close(geometry.dense.part(which).dense.costs(), made.C[which])
    if geometry.points is not None:
        assert (geometry.points.x.shape[:2], geometry.points.y.shape[1]) == (geometry.shape[:2], geometry.shape[2])
    assert geometry.price > 0


def test_gradients_in_what_the_cost_is_made_of(made):
    """Σ P ∂C/∂θ and Σ P (s ⊕ t + log P) ∂C/∂θ, against derivatives of the dense costs in float64."""
    geometry, o = made.geometry, Operands.of(made.geometry)
    s, t = (direction(seed, like.shape).to(like.dtype) for seed, like in ((312, o.u), (313, o.h)))
    wanted = (True,) * len(made.tensors)
    found = geometry.gradients(o.u, o.h, o.eps, wanted) if made.tensors else ()
    weighted_found = geometry.weighted_gradients(o.u, o.h, o.eps, s, t, wanted) if made.tensors else ()
    assert len(found) == len(weighted_found) == len(made.tensors)
    if not made.tensors:
        return
    P = plan(made, o)
    weighted = P * (s.double()[:, :, None] + t.double()[:, None, :]) + torch.xlogy(P, P)
    leaves = [one.double().requires_grad_() for one in made.tensors]
    for gradients, factors in ((found, P), (weighted_found, weighted)):
        expected = torch.autograd.grad((made.costs(*leaves) * factors).sum(), leaves)
        for one, other in zip(gradients, expected, strict=True):
            assert_close(one, other)


def test_differentiable_reductions(made):
    """They give the same numbers, and slopes that finite differences confirm, in potentials and weights."""
    geometry = made.geometry.exact()
    o = Operands.of(geometry)
    reductions, tensors = geometry.differentiable(o.eps), tuple(one.double() for one in made.tensors)
    if made.tensors == () and geometry.dense is not None:
        tensors = (made.C,)
    costs = reductions.centred(tensors)
    a, b = o.a, o.b
    f, g = (0.1 * direction(seed, like.shape) for seed, like in ((314, a), (315, b)))
    P = a[:, :, None] * torch.exp((f[:, :, None] + g[:, None, :] - made.C) / o.eps[:, :, None]) * b[:, None, :]
    raw = -o.eps * (b.log()[:, None, :] + (g[:, None, :] - made.C) / o.eps[:, :, None]).logsumexp(-1)
    if bool(raw.isfinite().all()):
        assert_close(reductions.softmin(g, b, costs, 0), raw)
    right = direction(316, (*b.shape, 2))
    product = reductions.product(f, g, a, b[:, :, None] * right, costs, 0)
    assert_close(product, P @ right)
    assert_close(reductions.plan_cost(f, g, a, b, costs), (P * finite(made.C)).sum((1, 2)))
    df, dg, da, db = (direction(seed, like.shape) for seed, like in ((317, a), (318, b), (319, a), (320, b)))

    def moved(t):
        potentials, masses = (f + t * df, g + t * dg), (a + t * da, b + t * db)
        sums = reductions.product(*potentials, masses[0], masses[1][:, :, None], costs, 0).square().sum()
        return sums + reductions.plan_cost(*potentials, *masses, costs).sum()

    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(moved(zero), zero, create_graph=True)
    measured = slope(lambda t: float(moved(torch.tensor(t, dtype=torch.float64))))
    assert float(first.detach()) == pytest.approx(measured, rel=1e-6, abs=1e-8)
    (second,) = torch.autograd.grad(first, zero)

    def first_at(t):
        at = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        (result,) = torch.autograd.grad(moved(at), at)
        return float(result)

    assert float(second) == pytest.approx(slope(first_at), rel=1e-6, abs=1e-7)
