"""Random problems for kernels, and every operation checked against `sinkdiv.kernels.reference` in float64.

Tolerances are derived, not guessed. A plan's entry is exp(z) with z = u_i + h_j − C_ij/ε, and rounding changes z by a
few units of its terms' sizes: |u_i| + |h_j| + (C_ij + δ_ij)/ε, where δ_ij (`Arithmetic.lost`) is what forming the cost
may lose besides, in units. So each entry has its own bound, and a reduction the same reduction of its entries' bounds.
`UNITS` is the one factor in front.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from sinkdiv.kernels import reference

#: How many units (finfo.eps) of its bound a result may be off; see above.
UNITS = 6.0


@dataclass(frozen=True)
class Shape:
    """What a random problem looks like; ``eps`` is relative to the largest cost, ``scale`` the size of the cloud."""

    seed: int = 0
    batch: int = 1
    n: int = 5
    m: int = 7
    d: int = 2
    eps: float = 0.1
    scale: float = 1.0
    empty: str = "none"
    coincident: bool = False
    tile: int = 512
    """Columns of a tile, for those that are empty but for the last."""


def exact_costs(x, y, p):
    """Costs |x−y|ᵖ in float64 from differences, one row at a time."""
    rows = [(x[:, i, None].double() - y.double()).square().sum(-1) for i in range(x.shape[1])]
    squares = torch.stack(rows, 1)
    return squares if p == 2 else squares.sqrt() if p == 1 else squares.pow(p / 2)


@dataclass(frozen=True)
class Arithmetic:
    """How kernels form costs, and from which dimension on they take matrix products where differences cancel nothing.

    ``lost(x, y, C, eps, p)`` is δ (B, n, m) for points in their dtype.
    """

    lost: Callable[..., torch.Tensor]
    costs: Callable[..., torch.Tensor] = exact_costs
    """Those that a kernel aims at, in float64."""
    gradients: int = 12
    """Up to this dimension Σ_j w_ij (x_i − y_j) is summed as it is; beyond it is x_i Σ_j w_ij − Σ_j w_ij y_j."""
    tangents: float = 8
    """Up to this dimension (x_i − y_j)·(dx_i − dy_j) is summed as it is."""
    rounded: Callable[..., torch.Tensor] = lambda points, p: points.double()
    """Points and tangents, in float64, as those products see them."""
    factors: float = 0.0
    """By how many units the factors of other matrix products are rounded."""


@dataclass(frozen=True)
class Case:
    """A problem in one dtype, and the same numbers in float64 with their costs."""

    x: torch.Tensor
    y: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    u: torch.Tensor
    h: torch.Tensor
    log_u: torch.Tensor
    log_h: torch.Tensor
    eps: torch.Tensor
    C: torch.Tensor
    """Costs in float64, from differences in every dimension."""
    lost: torch.Tensor
    """By how many units of float64 or float32 the cost of a pair may be off."""
    arithmetic: Arithmetic
    p: float = 2
    """The exponent of the cost."""
    forbidden: torch.Tensor | None = None
    """Pairs (B, n, m) whose costs are +∞ instead."""

    def wide(self, *names):
        return tuple(getattr(self, name).double() for name in names)

    @property
    def exact(self):
        """The specification in float64."""
        C = self.C if self.forbidden is None else self.C.masked_fill(self.forbidden, torch.inf)
        return reference.MatrixReductions(C)

    def exponents(self, h):
        """h_j − C_ij/ε, (B, n, m), in float64."""
        z = h.double()[:, None] - self.C / self.eps.double()[:, :, None]
        return z if self.forbidden is None else z.masked_fill(self.forbidden, -torch.inf)

    def exponent_units(self, *rows_and_columns):
        """(B, n, m): by how many units an exponent may be off."""
        u, h, eps = self.wide(*rows_and_columns, "eps")
        h = torch.where(h.isinf(), 0.0, h)
        return 1 + u.abs()[:, :, None] + h.abs()[:, None] + (self.C + self.lost) / eps[:, :, None]


def make(shape, dtype, p, arithmetic, *, device="cpu", matrix=False):
    """Weights, potentials as large as the costs |x−y|ᵖ, and rows whose masses are the weights."""
    generator = torch.Generator().manual_seed(shape.seed)

    def uniform(*size):
        return torch.rand(*size, generator=generator, dtype=torch.float64).to(device)

    batch, m, d = shape.batch, shape.m, shape.d
    n = max(1, min(shape.n, 2_000_000 // (batch * m * d)))
    x, y = shape.scale * (uniform(batch, n, d) - 0.5), shape.scale * (uniform(batch, m, d) - 0.3)
    if shape.coincident:
        y[:, : min(n, m)] = x[:, : min(n, m)]
    x, y = x.to(dtype), y.to(dtype)
    C = arithmetic.costs(x, y, p)
    if matrix:  # costs as they are given, which nothing forms and loses
        C = C.to(dtype).double()
    largest = (shape.scale * math.sqrt(d)) ** p
    eps = shape.eps * largest * torch.arange(1.0, batch + 1, dtype=torch.float64, device=device)[:, None]
    eps = eps.to(dtype)
    a, b = 0.1 + uniform(batch, n), 0.1 + uniform(batch, m)
    if n > 1:
        a[:, 0] = 0
    columns = torch.arange(m, device=device)
    kept = {
        "none": columns >= 0,
        "some": columns % 3 != 1,
        "first": columns > 0,
        "all but one": columns == m // 2,
        "all but the last tile": columns >= (m - 1) // shape.tile * shape.tile,
    }[shape.empty]
    if kept.any():
        b = b * kept
    a, b = (a / a.sum(-1, keepdim=True)).to(dtype), (b / b.sum(-1, keepdim=True)).to(dtype)
    log_h = (largest * (uniform(batch, m) - 0.5) / eps.double()).to(dtype)
    h = b.log() + log_h
    lost = torch.zeros_like(C) if matrix else arithmetic.lost(x, y, C, eps, p)
    case = Case(x, y, a, b, h, h, h, log_h, eps, C, lost, arithmetic, p)
    return with_unit_masses(case)


def with_infinite_eps(case):
    """The case whose plan is the product of its weights, exp(u_i + h_j) with ε = ∞."""
    eps = torch.full_like(case.eps, torch.inf)
    given = case.lost.any()  # else a matrix, whose costs lose nothing
    lost = case.arithmetic.lost(case.x, case.y, case.C, eps, case.p) if given else case.lost
    return replace(case, u=case.a.log(), h=case.b.log(), eps=eps, lost=lost)


def with_unit_masses(case):
    """The case with potentials of its rows such that their masses are the weights a, or 1."""
    rows = [-case.exponents(h).logsumexp(-1).to(case.a.dtype) for h in (case.h, case.log_h)]
    rows = [torch.where(row.isinf(), 0.0, row) for row in rows]
    return replace(case, u=case.a.log() + rows[0], log_u=rows[1])


def check(operation, actual, expected, bound, dtype, largest=None):
    """|actual − expected| ≤ UNITS · unit · bound, where entries below the normal range may have become 0. Those that
    are multiplied, by ``largest`` at most, become so below 2¹⁷ times that range: here a thousand entries may."""
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    unit, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    lost = tiny * (1e5 if largest is None else 1000 * 2**17 * max(1.0, float(largest)))
    excess = ((actual.double() - expected).abs() - lost).clamp(min=0) / (unit * bound + tiny)
    worst = float(excess.max())
    assert worst <= UNITS, f"{operation}: {worst:.1f} units"


def softmin_bound(case, h, expected):
    """A softmin is off by the mean error of its exponents under its own weights, and by its own rounding."""
    mean = torch.softmax(case.exponents(h), -1).nan_to_num(0.0)
    silent = replace(case, u=torch.zeros_like(case.u), h=h)
    return case.eps.double() * (mean * silent.exponent_units("u", "h")).sum(-1) + expected.abs()


def check_softmin(pairs, case, dtype):
    h, eps = case.wide("h", "eps")
    expected = case.exact.softmin(h, eps)
    check("softmin", pairs.softmin(case.h, case.eps), expected, softmin_bound(case, case.h, expected), dtype)


def check_all(pairs, case, dtype):
    """Every operation but those of points only."""
    check_matrices(pairs, case, dtype)
    check_sums(pairs, case, dtype)


def check_matrices(pairs, case, dtype):
    """Results as large as the costs."""
    P, entry = exact_plan(case)
    given = case.u, case.h, case.eps
    plan = pairs.plan_matrix(*given)
    check("plan_matrix", plan, P, entry, dtype)
    assert (plan[case.u.isinf()] == 0).all()
    assert (plan.mT[case.h.isinf()] == 0).all()
    along = Directions.of(case, dtype)
    weights, off = along.weighted_by_logarithms(P, entry)
    check("weighted_plan", pairs.weighted_plan(*given, along.s, along.t), weights, off, dtype, most(off, P))


def check_sums(pairs, case, dtype, widths=(1, 5, 12, 13, 70)):
    """Results as large as the weights; products of plans have these ``widths``."""
    check_softmin(pairs, case, dtype)
    P, entry = exact_plan(case)
    given = case.u, case.h, case.eps
    rows, columns = pairs.marginals(*given)
    check("row sums", rows, P.sum(2), entry.sum(2), dtype)
    check("column sums", columns, P.sum(1), entry.sum(1), dtype)
    assert (rows[case.u.isinf()] == 0).all()
    assert (columns[case.h.isinf()] == 0).all()

    check_cost_sums(pairs, case, dtype, widths)

    along = Directions.of(case, dtype)
    weights, off = along.weighted_by_logarithms(P, entry)
    for axis, sums in zip((2, 1), pairs.weighted_marginals(*given, along.s, along.t), strict=True):
        check(f"weighted sums {axis}", sums, weights.sum(axis), off.sum(axis), dtype, most(off, P))

    off = entry + case.arithmetic.factors * P
    for k in widths:
        generator = torch.Generator().manual_seed(k)
        v = torch.randn(*case.h.shape, k, generator=generator, dtype=dtype).to(case.h.device)
        check(f"plan_product {k}", pairs.plan_product(*given, v), P @ v.double(), off @ v.double().abs(), dtype)
    check_corrected_primal(pairs, case, dtype)
    if case.forbidden is None:
        check_cost_sums(pairs, with_infinite_eps(case), dtype, widths[:1])


def check_cost_sums(pairs, case, dtype, widths):
    """<P, C> and (P∘C) v. Each P_ij C_ij carries its plan entry's error and that of its cost."""
    P, entry = exact_plan(case)
    given, costs = (case.u, case.h, case.eps), P * case.C
    off = entry * case.C + P * (case.C + case.lost)
    check("plan_cost", pairs.plan_cost(*given), costs.sum((1, 2)), off.sum((1, 2)), dtype)
    off = off + case.arithmetic.factors * costs
    for k in widths:
        generator = torch.Generator().manual_seed(k)
        v = torch.randn(*case.h.shape, k, generator=generator, dtype=dtype).to(case.h.device)
        largest = float(case.C.max() * v.abs().max())
        actual = pairs.cost_product(*given, v)
        check(f"cost_product {k}", actual, costs @ v.double(), off @ v.double().abs(), dtype, largest)


def check_corrected_primal(pairs, case, dtype):
    a, b, log_u, log_h, eps = case.wide("a", "b", "log_u", "log_h", "eps")
    p, q = case.a.sqrt() / 10, case.b.sqrt() / 10
    if case.forbidden is not None:  # mass there would cost ∞
        p = torch.zeros_like(p)
    density = case.exact.plan_matrix(log_u, log_h, eps)
    off = density * case.exponent_units("log_u", "log_h")
    density = density + p.double()[:, :, None] * q.double()[:, None]
    size = case.C + eps[:, :, None] * (1 + torch.where(density > 0, density.log().abs(), 0.0))
    bound = ((a[:, :, None] * b[:, None]) * ((off + density) * size + density * case.lost)).sum((1, 2))
    actual = pairs.corrected_primal(case.a, case.b, case.log_u, case.log_h, case.eps, p, q)
    expected = case.exact.corrected_primal(a, b, log_u, log_h, eps, p.double(), q.double())
    check("corrected_primal", actual, expected, bound, dtype)


def differences(w, off, x, y, arithmetic):
    """Σ_j w_ij (x_i − y_j) in float64, and the bound of its rounding for weights that are off by ``off``: in many
    dimensions x and y are weighted before they are subtracted."""
    x, y = x.double(), y.double()
    total, bound = torch.empty_like(x), torch.empty_like(x)
    for k in range(x.shape[-1]):
        own, other = x[:, :, None, k], y[:, None, :, k]
        total[..., k] = (w * (own - other)).sum(-1)
        bound[..., k] = (off * (own - other).abs()).sum(-1)
        if x.shape[-1] > arithmetic.gradients:
            bound[..., k] += ((1 + arithmetic.factors) * w.abs() * (own.abs() + other.abs())).sum(-1)
    return total, bound


def exact_plan(case):
    """The plan in float64, and by how many units its entries may be off."""
    P = case.exact.plan_matrix(*case.wide("u", "h", "eps"))
    return P, P * torch.where(case.u.isinf()[:, :, None], 0.0, case.exponent_units("u", "h"))


def slopes(case, p):
    """What turns differences of points into derivatives of costs: p |x−y|^{p−2}."""
    return 2.0 if p == 2 else torch.where(case.C > 0, p * case.C ** (1 - 2 / p), 0.0)


def check_gradient(pairs, case, p, dtype):
    """Each P_ij ∂c carries its entry's error."""
    (P, entry), factor = exact_plan(case), slopes(case, p)
    expected, bound = differences(factor * P, factor * entry, case.x, case.y, case.arithmetic)
    largest = most(factor * entry, P) * case.x.abs().max()
    check("plan_gradient", pairs.plan_gradient(case.u, case.h, case.eps), expected, bound, dtype, largest)


@dataclass(frozen=True)
class Directions:
    """Factors s (B, n) and t (B, m) of a weighted plan, and a motion dx, dy of the points."""

    s: torch.Tensor
    t: torch.Tensor
    dx: torch.Tensor
    dy: torch.Tensor

    @classmethod
    def of(cls, case, dtype):
        generator = torch.Generator().manual_seed(case.C.shape[1])
        s, t, dx, dy = (
            torch.randn(*like.shape, generator=generator, dtype=torch.float64).to(like.device, dtype)
            for like in (case.u, case.h, case.x, case.y)
        )
        size = case.x.abs().max()
        return cls(s, t, size * dx, size * dy)

    def weighted(self, P, entry, slope, values, loose):
        """P_ij (s_i + t_j + slope V_ij) in float64, and its bound for values that may be off by ``loose``."""
        s, t = self.s.double()[:, :, None], self.t.double()[:, None]
        factors = s + t + slope * values
        size = s.abs() + t.abs() + slope.abs() * (values.abs() + loose)
        return P * factors, entry * factors.abs() + P * size

    def weighted_by_logarithms(self, P, entry):
        """P_ij (s_i + t_j + log P_ij) in float64, and its bound: the logarithm is off by as much as the entry is."""
        somewhat = torch.where(P > 0, P, 1.0)
        return self.weighted(P, entry, torch.ones_like(P), somewhat.log(), entry / somewhat)


def check_derivatives(pairs, case, p, dtype):
    """What only points have besides. Each term carries its plan entry's error and those of its factors."""
    (P, entry), factor = exact_plan(case), slopes(case, p)
    along = Directions.of(case, dtype)
    weights, off = along.weighted_by_logarithms(P, entry)
    expected, bound = differences(factor * weights, factor * off, case.x, case.y, case.arithmetic)
    actual = pairs.weighted_gradient(case.u, case.h, case.eps, along.s, along.t)
    check("weighted_gradient", actual, expected, bound, dtype, most(factor * off, P) * case.x.abs().max())
    check_tangents(pairs, case, p, dtype, along)


def check_tangents(pairs, case, p, dtype, along):
    given = case.u, case.h, case.eps
    (P, entry), factor = exact_plan(case), slopes(case, p)
    tangent, loose = tangents(case, along.dx, along.dy, p)
    bound = entry * tangent.abs() + P * loose
    actual = pairs.tangent_marginals(*given, along.dx, along.dy)
    for axis, sums in zip((2, 1), actual, strict=True):
        check(f"tangent sums {axis}", sums, (P * tangent).sum(axis), bound.sum(axis), dtype, tangent.abs().max())
    assert (actual[0][case.u.isinf()] == 0).all()
    assert (actual[1][case.h.isinf()] == 0).all()

    # Of a distance's velocity only the part across the line of two points turns its gradient.
    slope = -1 / case.eps.double()[:, :, None]
    if p != 2:
        slope = slope + torch.where(case.C > 0, (p - 2) / (p * case.C), 0.0)
    weights, off = along.weighted(P, entry, slope, tangent, loose)
    expected, bound = differences(factor * weights, factor * off, case.x, case.y, case.arithmetic)
    turned, turned_bound = differences(factor * P, factor * (entry + P), along.dx, along.dy, case.arithmetic)
    actual = pairs.gradient_tangent(*given, along.s, along.t, along.dx, along.dy)
    largest = most(factor * off, P) * case.x.abs().max()
    check("gradient_tangent", actual, expected + turned, bound + turned_bound, dtype, largest)


def most(values, P):
    """By how much an entry of the plan is multiplied at most."""
    return (values / P).nan_to_num(0.0).max()


def tangents(case, dx, dy, p):
    """The tangents of the costs from differences in float64, and by how many units of float64 or float32 they may be
    off: a sum of d products carries √d units of its size, which cancels where it may come from products."""
    x, y, dx, dy = (case.arithmetic.rounded(points, p) for points in (case.x, case.y, dx, dy))
    d = x.shape[-1]
    rows = [((x[:, i, None] - y) * (dx[:, i, None] - dy)).sum(-1) for i in range(x.shape[1])]
    products, speed = torch.stack(rows, 1), torch.cdist(dx, dy)
    if p != 2:
        factor = slopes(case, p)
        return factor * products, (1 + math.sqrt(d)) * factor * case.C ** (1 / p) * speed
    loose = 2 * (1 + math.sqrt(d)) * case.C.sqrt() * speed
    if d > case.arithmetic.tangents:
        sizes = [one.norm(dim=-1)[:, :, None] + other.norm(dim=-1)[:, None] for one, other in ((x, y), (dx, dy))]
        loose = loose + max(2, math.sqrt(d) / 2) * sizes[0] * sizes[1]
    return 2 * products, loose
