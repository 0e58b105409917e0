"""The Triton kernels against their specification, `sinkdiv.kernels.reference`, evaluated in float64.

Where there is no GPU they run on CPU tensors, through Triton's interpreter (`conftest`): the same Python, tile by tile,
but float32 products and exponentials are NumPy's. Tolerances are those of `kernel_checks`; what forming a cost may lose
besides is, in units,

- of a sum of d squares about √d units of itself, and in up to 4 dimensions, where coordinates are scaled before they
  are subtracted, δ = 2|x−y|(|x|+|y|);
- of squared distances from products |x|² − 2xy + |y|², which serve float32 in more than 8 dimensions: δ = ½(|x|² +
  |y|²) for norms, and max(2, ½√d)|x||y| for the sum and for what two float16 numbers leave of a coordinate: its last
  place, and of a product of two their smallest part, at most 2⁻²²|x||y|;
- of a power that is neither 2 nor 1: the logarithm's own digits.

With precision "tf32" costs are those of points rounded to 11 bits, to the same tolerance.
"""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from kernel_checks import (
    Arithmetic,
    Directions,
    Shape,
    check,
    check_derivatives,
    check_gradient,
    check_matrices,
    check_softmin,
    check_sums,
    check_tangents,
    exact_costs,
    make,
    softmin_bound,
    with_infinite_eps,
    with_unit_masses,
)
from sinkdiv.costs import power

pytest.importorskip("triton", reason="Triton is not installed")

from sinkdiv.kernels.triton import launching, operands, reductions
from sinkdiv.kernels.triton.reductions import MatrixReductions, PointReductions
from sinkdiv.kernels.triton.tiles import Form

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

#: The interpreter computes with what a mask leaves out, too.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

F32, F64 = torch.float32, torch.float64

#: Columns of products: for tiles of 16 and 32 of them, and for two tiles of 64.
WIDTHS = (1, 17, 70)


def lost_units(x, y, C, eps, p):
    """δ_ij of the docstring above, for points in their dtype."""
    d = x.shape[-1]
    lost = max(1.0, p / 2) * math.sqrt(d) * C
    if p not in (1, 2):
        lost = lost + C * (1 + torch.where(C > 0, C.log().abs(), 0.0))
    size_x, size_y = x.double().norm(dim=-1)[:, :, None], y.double().norm(dim=-1)[:, None]
    if p == 2 and d <= 4:
        lost = lost + 2 * C.sqrt() * (size_x + size_y)
    if by_products(x, p):
        lost = lost + (size_x**2 + size_y**2) / 2 + max(2, math.sqrt(d) / 2) * size_x * size_y
    return lost


def by_products(x, p):
    return p == 2 and x.dtype == F32 and x.shape[-1] > 8


def rounded(x, p):
    """Numbers with 11 significant bits, the nearest ones, where they are factors of products."""
    if not by_products(x, p):
        return x.double()
    mantissa, exponent = torch.frexp(x.double())
    return torch.ldexp((mantissa * 2**11).round(), exponent - 11)


def costs_of_rounded(x, y, p):
    return exact_costs(rounded(x, p), rounded(y, p), p)


#: By how many units tensor cores round the factors of products of plans: to 11 bits, or three products to about 20.
FACTORS = {"high": 8.0, "tf32": 2.0**12} if DEVICE == "cuda" else {"high": 0.0, "tf32": 0.0}

ARITHMETIC = {
    "high": Arithmetic(lost_units, gradients=8, factors=FACTORS["high"]),
    "tf32": Arithmetic(lost_units, costs_of_rounded, gradients=8, rounded=rounded, factors=FACTORS["tf32"]),
}


@pytest.fixture
def one_part(monkeypatch):
    """Each program goes through all columns."""
    monkeypatch.setattr(launching, "PROGRAMS", 0)


@pytest.fixture
def many_parts(monkeypatch):
    """Each program goes through one tile of columns, as where there are few rows."""
    monkeypatch.setattr(launching, "PROGRAMS", 10**6)
    monkeypatch.setattr(launching, "PART_TILES", 1)


@pytest.fixture(params=["one_part", "many_parts"])
def parts(request):
    request.getfixturevalue(request.param)


@dataclass(frozen=True)
class Trial:
    """A random problem, a cost |x−y|ᵖ and how it is computed."""

    shape: Shape
    p: float = 2
    dtype: torch.dtype = F32
    precision: str = "high"
    derivatives: bool = True
    """Those of second order, which the interpreter takes long for in many dimensions."""

    def __str__(self):
        shape, dtype = self.shape, str(self.dtype)[-7:]
        return f"{shape.batch}x{shape.n}x{shape.m}-d{shape.d}-p{self.p}-{dtype}-{self.precision}-eps{shape.eps:g}"

    def make(self):
        case = make(self.shape, self.dtype, self.p, ARITHMETIC[self.precision], device=DEVICE)
        return case, PointReductions(case.x, case.y, power(self.p), precision=self.precision)


# Sizes are around those of tiles: 32 rows and 128 columns where few coordinates are subtracted, 128 rows and 64 columns
# where many are multiplied, 32 or 64 of each elsewhere.
WHOLE = [
    Trial(Shape(n=1, m=1, d=1)),
    Trial(Shape(batch=2, n=65, m=127, d=3, eps=1e-2)),
    Trial(Shape(n=64, m=64, d=5, eps=1e3, coincident=True)),
    Trial(Shape(n=33, m=65, d=2, eps=1e-4, empty="some"), dtype=F64),
    Trial(Shape(n=31, m=32, d=9, eps=1e-3, coincident=True), dtype=F64),
    Trial(Shape(n=63, m=65, d=2, eps=1e-3, coincident=True), p=1),
    Trial(Shape(n=17, m=31, d=12, eps=0.1, scale=1e3), p=1),
    Trial(Shape(n=33, m=17, d=2, eps=1e-2, coincident=True), p=1.5),
    Trial(Shape(n=17, m=33, d=10, eps=0.1, scale=1e-3), p=3.5, dtype=F64),
    Trial(Shape(n=129, m=33, d=9, eps=1e-2, scale=1e-3, empty="first")),
    Trial(Shape(n=64, m=65, d=64, eps=1e-2, coincident=True), derivatives=False),
    Trial(Shape(n=40, m=1, d=128, eps=1.0), derivatives=False),
    Trial(Shape(n=9, m=3, d=129, eps=1e-3), derivatives=False),
    Trial(Shape(n=2, m=3, d=200, eps=1e-4), derivatives=False),
    Trial(Shape(n=20, m=33, d=16, eps=1e-3), precision="tf32"),
]

IN_PARTS = [
    Trial(Shape(n=7, m=129, d=8, eps=1e-3, scale=1e3, empty="all but the last tile", tile=128)),
    Trial(Shape(batch=2, n=3, m=129, d=1, eps=1e-4, empty="all but one")),
    Trial(Shape(batch=2, n=13, m=65, d=3, eps=0.1, empty="some"), dtype=F64),
    Trial(Shape(n=3, m=65, d=33, eps=1.0), p=1, dtype=F64, derivatives=False),
    Trial(Shape(batch=2, n=13, m=129, d=3, eps=1e-4), p=1),
    Trial(Shape(n=3, m=129, d=1, eps=0.1, scale=1e3), p=0.5),
    Trial(Shape(n=1, m=65, d=16, eps=1e-4)),
    Trial(Shape(batch=2, n=20, m=65, d=33, eps=0.1, empty="some")),
    Trial(Shape(n=5, m=65, d=150, eps=1e-2), precision="tf32", derivatives=False),
]


def turned(case):
    """The problem of y and x."""
    forbidden = None if case.forbidden is None else case.forbidden.mT
    other = replace(
        case, x=case.y, y=case.x, a=case.b, b=case.a, h=case.u, log_h=case.log_u, C=case.C.mT, lost=case.lost.mT,
        forbidden=forbidden,
    )  # fmt: skip
    return with_unit_masses(other)


def form_of(trial):
    """How the costs of points come about."""
    if trial.shape.d <= 8:
        return Form.DIFFERENCES
    products = trial.p == 2 and trial.dtype == F32
    return (Form.HALVES if trial.precision == "high" else Form.ROUNDED) if products else Form.LOOP


def check_points(trial):
    """What is computed of points by kernels."""
    case, pairs = trial.make()
    check_sums(pairs, case, trial.dtype, WIDTHS)
    check_gradient(pairs, case, trial.p, trial.dtype)
    check("costs", pairs.costs(), case.C, case.C + case.lost, trial.dtype)
    if trial.derivatives:
        check_derivatives(pairs, case, trial.p, trial.dtype)


@pytest.mark.parametrize("trial", WHOLE, ids=str)
def test_reductions_over_points(one_part, trial):
    check_points(trial)


@pytest.mark.parametrize("trial", IN_PARTS, ids=str)
def test_reductions_over_points_in_parts_of_the_columns(many_parts, trial):
    form, wide = form_of(trial), trial.dtype == F64
    assert all(tile.columns < trial.shape.m for tile in operands.SUM_TILES[form, wide]), "several parts"
    check_points(trial)


@pytest.mark.parametrize("precision", ["high", "tf32"])
def test_points_of_more_coordinates_than_are_kept(monkeypatch, one_part, precision):
    """They are taken so many at a time: here 16 of 40."""
    monkeypatch.setattr(operands, "KEPT_DIMENSION", 16)
    monkeypatch.setattr(operands, "CHUNK", 16)
    check_points(Trial(Shape(n=20, m=33, d=40, eps=1e-2), precision=precision))


# Softmins with a guess.


def check_near(pairs, case, near, dtype):
    """A guess changes nothing but rounding: sums that it begins with carry units of it."""
    eps, h = case.wide("eps", "h")
    expected = case.exact.softmin(h, eps)
    used = (near.double() - expected).abs() < 100 * eps
    bound = softmin_bound(case, case.h, expected) + torch.where(used, near.double().abs(), 0.0)
    check("softmin near", pairs.softmin(case.h, case.eps, near), expected, bound, dtype)


#: Distances from the answer, in ε: within and beyond what sums between 2⁻⁶⁰ and 2¹⁰⁰ allow.
OFF = [0.0, -40.0, 65.0, -45.0, 75.0, -100.0, 100.0]

ABSURD = [1e30, -1e30, math.inf, -math.inf, math.nan]

NEAR = [
    Trial(Shape(batch=2, n=65, m=129, d=3, eps=1e-2, empty="some")),
    Trial(Shape(n=13, m=70, d=2, eps=1e-3), p=1, dtype=F64),
    Trial(Shape(n=129, m=65, d=16, eps=1e-2)),
    Trial(Shape(n=3, m=33, d=784, eps=0.1)),
]


@pytest.mark.parametrize("trial", NEAR, ids=str)
def test_a_guess_changes_no_softmin(parts, trial):
    """However good or bad it is, for all rows alike or for some of them."""
    case, pairs = trial.make()
    expected, eps = case.exact.softmin(*case.wide("h", "eps")), case.eps.double()
    pattern = torch.tensor(OFF, dtype=torch.float64, device=DEVICE).repeat(expected.shape[1])[: expected.shape[1]]
    for off in (*OFF, pattern):
        check_near(pairs, case, (expected + off * eps).to(trial.dtype), trial.dtype)


@pytest.mark.parametrize("value", ABSURD)
def test_a_guess_that_is_no_number_changes_no_softmin(parts, dtype, value):
    """Not even of one row."""
    case, pairs = Trial(Shape(n=13, m=70, d=3, eps=1e-2), dtype=dtype).make()
    near = case.exact.softmin(*case.wide("h", "eps")).to(dtype)
    near[:, -1] = value
    check_near(pairs, case, near, dtype)


# Between points and themselves.

SELF = [
    Trial(Shape(n=1, m=1, d=3)),
    Trial(Shape(batch=2, n=193, m=193, d=3, eps=1e-2)),
    Trial(Shape(n=65, m=65, d=2, eps=1e-3), p=1, dtype=F64),
    Trial(Shape(n=129, m=129, d=16, eps=1e-1)),
]


@pytest.mark.parametrize("trial", SELF, ids=str)
def test_softmins_between_points_and_themselves(parts, monkeypatch, trial):
    """Near the potentials of a symmetric problem half the exponentials are enough; other guesses do no harm."""
    monkeypatch.setattr(reductions, "SYMMETRIC_POINTS", 1)
    case = make(trial.shape, trial.dtype, trial.p, ARITHMETIC[trial.precision], device=DEVICE)
    C = case.arithmetic.costs(case.x, case.x, trial.p)
    log_a = case.a.log().clamp(min=-20.0)
    case = replace(case, y=case.x, C=C, lost=lost_units(case.x, case.x, C, case.eps, trial.p), h=log_a)
    eps = case.eps.double()
    for _ in range(20):
        f = case.exact.softmin(case.h.double(), eps)
        case = replace(case, h=(log_a + case.h) / 2 + (f / eps / 2).to(trial.dtype))
    pairs = PointReductions(case.x, case.x, power(trial.p))
    # Factors of the sums' terms that are too small or too large for float32, though the terms are neither.
    for constant in (-44.0, 44.0, -90.0, 90.0):
        shifted = replace(case, h=case.h + constant)
        near = shifted.exact.softmin(shifted.h.double(), eps)
        check_near(pairs, shifted, near.to(trial.dtype), trial.dtype)
    expected = case.exact.softmin(case.h.double(), eps)
    for near in (expected, expected + 20 * eps, expected - 100 * eps, torch.full_like(expected, 1e30)):
        check_near(pairs, case, near.to(trial.dtype), trial.dtype)


# Matrices.


def costs_by_strides(case, layout):
    """The case's costs in a tensor whose strides are those of a transposed matrix, or of a part of a larger one."""
    C = case.C.to(case.h.dtype)
    if layout == "transposed":
        return C.mT.contiguous().mT
    larger = torch.full((C.shape[0], C.shape[1] + 2, 2 * C.shape[2] + 3), math.nan, dtype=C.dtype, device=DEVICE)
    part = larger[:, 1:-1, 2:-1:2]
    part.copy_(C)
    return part


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("packed", Shape(n=33, m=129, eps=1e-3, empty="some")),
        ("transposed", Shape(batch=2, n=31, m=65, eps=0.1)),
        ("spaced", Shape(batch=2, n=33, m=5, eps=1.0)),
        ("packed", Shape(n=1, m=1)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reductions_over_a_matrix(parts, dtype, layout, shape):
    """Of any strides; costs are those given, and swapped pairs are those of its transpose."""
    case = make(shape, dtype, 2, ARITHMETIC["high"], device=DEVICE, matrix=True)
    pairs = MatrixReductions(costs_by_strides(case, layout))
    check_sums(pairs, case, dtype, WIDTHS)
    check_matrices(pairs, case, dtype)
    check_near(pairs, case, case.exact.softmin(*case.wide("h", "eps")).to(dtype), dtype)
    check_softmin(pairs.swapped(), turned(case), dtype)
    assert torch.equal(pairs.costs().double(), case.C)


@pytest.mark.parametrize("shape", [Shape(n=33, m=129, eps=0.1, empty="some"), Shape(batch=2, n=9, m=65, eps=1e-3)])
def test_forbidden_pairs_have_no_mass(parts, dtype, shape):
    """Costs of +∞, for single pairs, whole rows and whole columns; a row without any pair has the softmin 0."""
    case = make(shape, dtype, 2, ARITHMETIC["high"], device=DEVICE, matrix=True)
    generator = torch.Generator().manual_seed(1)
    forbidden = torch.rand(case.C.shape, generator=generator) < 0.4
    forbidden[:, 2], forbidden[:, :, 3] = True, True
    case = with_unit_masses(replace(case, forbidden=forbidden.to(DEVICE)))
    pairs = MatrixReductions(case.exact.costs().to(dtype))
    check_sums(pairs, case, dtype, (1,))
    check_matrices(pairs, case, dtype)
    for near in (case.exact.softmin(*case.wide("h", "eps")), torch.full_like(case.u.double(), 1e30)):
        check_near(pairs, case, near.to(dtype), dtype)
    assert (pairs.softmin(case.h, case.eps)[:, 2] == 0).all()
    # With ε = ∞ a plan puts mass on forbidden pairs, which costs ∞.
    product = with_infinite_eps(case)
    given = product.u, product.h, product.eps
    costs = pairs.cost_product(*given, torch.ones_like(product.h)[:, :, None])[:, :, 0]
    massive = (product.forbidden & (product.h > -math.inf)[:, None]).any(-1) & (product.u > -math.inf)
    assert torch.equal(costs.isposinf(), massive)
    assert torch.equal(pairs.plan_cost(*given).isposinf(), massive.any(-1))
    # A correction that puts mass on a forbidden pair costs ∞.
    ones = torch.ones_like(case.a), torch.ones_like(case.b)
    given = torch.ones_like(case.a), torch.ones_like(case.b), case.log_u, case.log_h, case.eps, *ones
    assert (pairs.corrected_primal(*given) == math.inf).all()


# The limit of small ε.


def check_ctransform(pairs, case, dtype):
    """min_j (C_ij − g_j) is off by rounding what is compared."""
    # So low that no least value is below 0, which is what costs may be where there are no columns.
    g = (case.log_h * case.eps - 2 * case.C.max().to(dtype)).masked_fill(case.b == 0, -math.inf)
    C = case.C if case.forbidden is None else case.C.masked_fill(case.forbidden, math.inf)
    values = C - g.double()[:, None]
    size = case.C + case.lost + torch.where(g.isinf(), 0.0, g.abs())[:, None]
    bound = size.amax(-1)
    check("ctransform", pairs.ctransform(g), values.amin(-1), bound, dtype)


CTRANSFORMS = [
    Trial(Shape(batch=2, n=65, m=129, d=3, empty="some")),
    Trial(Shape(n=33, m=65, d=9), p=1, dtype=F64),
    Trial(Shape(n=13, m=65, d=16, empty="all but one")),
    Trial(Shape(n=1, m=65, d=129), precision="tf32"),
]


@pytest.mark.parametrize("trial", CTRANSFORMS, ids=str)
def test_ctransforms_are_minima(parts, trial):
    """Columns without weight are none of those."""
    case, pairs = trial.make()
    check_ctransform(pairs, case, trial.dtype)


def test_ctransforms_of_a_matrix(parts, dtype):
    """Forbidden pairs are never the least."""
    case = make(Shape(batch=2, n=33, m=129), dtype, 2, ARITHMETIC["high"], device=DEVICE, matrix=True)
    case = replace(case, forbidden=(torch.arange(129, device=DEVICE) % 4 == 1).expand(case.C.shape))
    check_ctransform(MatrixReductions(case.exact.costs().to(dtype)), case, dtype)


# The problems of a batch may have different sizes.


@pytest.mark.parametrize("trial", [
    Trial(Shape(batch=2, n=65, m=130, d=3, eps=1e-2)),
    Trial(Shape(batch=2, n=33, m=66, d=2, eps=0.1), p=1, dtype=F64, derivatives=False),
    Trial(Shape(batch=2, n=129, m=66, d=16, eps=0.1), derivatives=False),
], ids=str)  # fmt: skip
def test_rows_and_columns_beyond_the_counts_are_passed_over(parts, trial):
    """Each problem is solved as it would be alone; padding has no mass and no gradient, and its softmin is no NaN."""
    case, _ = trial.make()
    n, m = case.C.shape[1:]
    counts = (1, n - 1), (m - 1, 1)
    rows, columns = (torch.tensor(count, device=DEVICE) for count in counts)
    real = torch.arange(n, device=DEVICE) < rows[:, None], torch.arange(m, device=DEVICE) < columns[:, None]
    a, b = (torch.where(mask, weights.clamp(min=1e-3), 0) for mask, weights in zip(real, (case.a, case.b), strict=True))
    # What is beyond is zeros, which would be near everything.
    x, y = (points * mask[:, :, None] for mask, points in zip(real, (case.x, case.y), strict=True))
    C = exact_costs(x, y, trial.p)
    lost = lost_units(x, y, C, case.eps, trial.p)
    case = with_unit_masses(replace(case, x=x, y=y, a=a, b=b, h=b.log() + case.log_h, C=C, lost=lost))
    pairs = PointReductions(x, y, power(trial.p), counts=(rows, columns))
    check_sums(SoftminsOfReal(pairs, case, real[0]), case, trial.dtype, (3,))
    check_gradient(pairs, case, trial.p, trial.dtype)
    if trial.derivatives:
        check_derivatives(pairs, case, trial.p, trial.dtype)
    check_gradient(pairs.swapped(), turned(case), trial.p, trial.dtype)
    for softmins in (pairs.softmin(case.h, case.eps), pairs.softmin(case.h, case.eps), case.log_u):
        assert softmins.isfinite().all()


class SoftminsOfReal:
    """Pairs whose softmins of padding, which nobody asks for, are the exact ones."""

    def __init__(self, pairs, case, rows):
        self._pairs, self._case, self._rows = pairs, case, rows

    def __getattr__(self, name):
        return getattr(self._pairs, name)

    def softmin(self, h, eps):
        exact = self._case.exact.softmin(h.double(), eps.double())
        return torch.where(self._rows, self._pairs.softmin(h, eps), exact.to(h.dtype))


# Precision.


def test_tf32_is_within_the_rounding_of_points():
    """A cost is that of points moved by 2⁻¹² of their coordinates: within 2⁻¹¹|x−y|(|x|+|y|) of the true one, to first
    order."""
    trial = Trial(Shape(n=20, m=33, d=64, eps=1e-2), precision="tf32")
    case, pairs = trial.make()
    C = exact_costs(case.x, case.y, 2)
    sizes = case.x.double().norm(dim=-1)[:, :, None] + case.y.double().norm(dim=-1)[:, None]
    least = pairs.ctransform(torch.zeros_like(case.h)).double()
    moved = (C.sqrt() * sizes * 2.0**-11 + sizes**2 * 2.0**-24).amax(-1)
    assert ((least - C.amin(-1)).abs() <= moved).all()
    assert ((least - C.amin(-1)).abs() > 1e-6 * C.amin(-1)).any(), "TF32 was asked for"


@pytest.mark.parametrize("exponent", [-50, 50])
@pytest.mark.parametrize(("d", "precision"), [(3, "high"), (16, "high"), (150, "high"), (16, "tf32")])
def test_powers_of_two_change_no_digit(exponent, d, precision):
    """Points of size 10⁻¹⁵ and 10¹⁵ are brought within the range of float16, and lose nothing there."""
    case, pairs = Trial(Shape(batch=2, n=5, m=9, d=d, eps=0.1), precision=precision).make()
    factor = 2.0**exponent
    scaled = PointReductions(factor * case.x, factor * case.y, power(2), precision=precision)
    softmin = pairs.softmin(case.h, case.eps)
    assert torch.equal(scaled.softmin(case.h, factor**2 * case.eps), factor**2 * softmin)
    gradient = pairs.plan_gradient(case.u, case.h, case.eps)
    assert torch.equal(scaled.plan_gradient(case.u, case.h, factor**2 * case.eps), factor * gradient)


@pytest.mark.parametrize("scales", [(1e-3, 1e3), (1e-9, 1.0), (1.0, 1e-30), (0.0, 1.0)])
def test_clouds_of_different_size(scales):
    """Each has a power of two of its own, of which neither is too large."""
    shape = Shape(n=5, m=33, d=16, eps=0.1)
    case = make(shape, F32, 2, ARITHMETIC["high"], device=DEVICE)
    x, y = (scale * points for scale, points in zip(scales, (case.x, case.y), strict=True))
    C = exact_costs(x, y, 2)
    eps = (0.1 * C.amax((1, 2))[:, None]).float()
    case = with_unit_masses(replace(case, x=x, y=y, C=C, eps=eps, lost=lost_units(x, y, C, eps, 2)))
    pairs = PointReductions(x, y, power(2))
    check_softmin(pairs, case, F32)
    check_gradient(pairs, case, 2, F32)


# What is as large as the costs is not streamed.


@pytest.mark.parametrize("trial", [
    Trial(Shape(batch=2, n=13, m=17, d=3, empty="some")),
    Trial(Shape(n=13, m=17, d=16, eps=1e-2)),
    Trial(Shape(n=13, m=17, d=16, eps=1e-2), p=1, dtype=F64),
], ids=str)  # fmt: skip
def test_results_as_large_as_the_costs(trial):
    case, pairs = trial.make()
    check_matrices(pairs, case, trial.dtype)


# Deterministic algorithms.


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("form", ["points", "matrix"])
def test_sums_without_atomic_additions(deterministic, form, monkeypatch):
    """Where they are forbidden, sums over the rows are those of the swapped pairs."""
    monkeypatch.setattr(reductions, "SYMMETRIC_POINTS", 1)
    shape = Shape(batch=2, n=70, m=40, d=3, eps=0.05)
    case = make(shape, F32, 2, ARITHMETIC["high"], device=DEVICE, matrix=form == "matrix")
    pairs = MatrixReductions(case.C.float()) if form == "matrix" else PointReductions(case.x, case.y, power(2))
    check_sums(pairs, case, F32, (1,))
    given = case.u, case.h, case.eps
    assert torch.equal(pairs.marginals(*given)[1], pairs.swapped().marginals(case.h, case.u, case.eps)[0])
    if form == "points":
        check_tangents(pairs, case, 2, F32, Directions.of(case, F32))
        pairs = PointReductions(case.x, case.x, power(2))
        near = pairs.softmin(case.u, case.eps)
        torch.testing.assert_close(pairs.softmin(case.u, case.eps, near), near, rtol=1e-6, atol=1e-6)


def test_the_largest_tile_that_fits_is_taken(monkeypatch):
    """A launch that asks for too much shared memory is followed by one with the next tile; the last error is told."""
    from triton.runtime.errors import OutOfResources

    case, pairs = Trial(Shape(n=40, m=70, d=16)).make()
    kernel, tried = reductions.softmin_kernel, []

    class Cramped:
        def __getitem__(self, grid):
            def launch(*arguments, **options):
                tried.append(options["BM"])
                if options["BM"] > room:
                    raise OutOfResources(300_000, 100_000, "shared memory")
                return kernel[grid](*arguments, **options)

            return launch

    cramped = Cramped()
    monkeypatch.setattr(reductions, "softmin_kernel", cramped)
    room, choices = 64, operands.SOFTMIN_TILES[Form.HALVES, False]
    check_softmin(pairs, case, F32)
    assert tried == [tile.rows for tile in choices[: len(tried)]]
    assert len(tried) > 1
    room = 0
    with pytest.raises(OutOfResources):
        pairs.softmin(case.h, case.eps)
