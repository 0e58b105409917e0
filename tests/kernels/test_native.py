"""The native kernels against their specification, `sinkdiv.kernels.reference`, evaluated in float64.

Tolerances are those of `kernel_checks`; what forming a cost may lose besides is, in units,

- of squared distances in up to 4 dimensions, which come from scaled coordinates: δ = 2|x−y|(|x|+|y|);
- of those in more than 8 dimensions, which may come from a product where this is harmless: δ = ½√d |x||y|, else 0;
- of a sum of d squares about √d units of itself.

Of 10,000 random problems the worst needed 2.7 units of its bound (a gradient), most operations 1.5.
"""

import math
import multiprocessing
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sinkdiv
from kernel_checks import (
    Arithmetic,
    Case,
    Directions,
    Shape,
    check,
    check_all,
    check_derivatives,
    check_gradient,
    check_tangents,
    exact_costs,
    make,
)
from problems import EXPONENT, cloud, weights
from sinkdiv import kernels
from sinkdiv.cli.app import run
from sinkdiv.costs import find_cost
from sinkdiv.geometry import CloudGeometry, whole
from sinkdiv.kernels import native, reference
from sinkdiv.solvers import Limits, Problem, Start, small, solve
from small_problems import KINDS, Kind, assert_same_solution, transport_problem

COSTS = list(EXPONENT)

INSTRUCTION_SETS = native._native.supported_instruction_sets() if native.available else ["none"]

needs_native = pytest.mark.skipif(not native.available, reason="the native extension was not built")


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request):
    """Each of those that this processor supports."""
    if not native.available:
        pytest.skip("the native extension was not built")
    before = native.instruction_set()
    native._native.use_instruction_set(request.param)
    yield request.param
    native._native.use_instruction_set(before)


@pytest.fixture
def threads():
    """Sets the number of threads for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# Random problems.


def lost_units(x, y, C, eps, p, centred=False):
    """δ_ij of the docstring above, for points in their dtype. ``centred``: subtracting a centre has rounded
    coordinates."""
    unit = torch.finfo(x.dtype).eps
    x, y, eps = x.double(), y.double(), eps.double()[:, :, None]
    d = x.shape[-1]
    size_x, size_y = x.norm(dim=-1)[:, :, None], y.norm(dim=-1)[:, None]
    lost = math.sqrt(d) * C
    if p == 2:
        if centred:
            lost = lost + 2 * C.sqrt() * (size_x + size_y)
        if d > 8:
            # Harmless: the rounding of 2|x||y| changes no exponent (of base 2) by more than 2.5e-4.
            worst = 2 * unit * size_x.amax(1, keepdim=True) * size_y.amax(2, keepdim=True) / (eps * math.log(2))
            lost = lost + torch.where(worst < 2.51e-4, max(2, math.sqrt(d) / 2) * size_x * size_y, 0.0)
    elif centred:
        lost = lost + size_x + size_y
    return lost


NATIVE = Arithmetic(lost_units)

SHAPES = st.builds(
    Shape,
    seed=st.integers(0, 9999),
    batch=st.integers(1, 3),
    n=st.sampled_from([1, 2, 3, 5, 6, 7, 13, 47, 48, 49, 97]),
    m=st.sampled_from([1, 2, 3, 15, 16, 17, 31, 65, 511, 512, 513, 1025]),
    d=st.sampled_from([1, 2, 3, 4, 5, 8, 9, 12, 13, 63, 64, 65, 129, 784, 1000]),
    eps=st.floats(-4, 3).map(lambda exponent: 10**exponent),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    empty=st.sampled_from(["none", "some", "all but one", "all but the last tile", "first"]),
    coincident=st.booleans(),
)

NASTY = [
    Shape(n=1, m=1, d=1),
    Shape(n=1, m=1, d=1000, coincident=True),
    Shape(n=50, m=1025, d=3, eps=1e-4, empty="all but the last tile"),
    Shape(n=7, m=1025, d=1, eps=1e-4, empty="all but one"),
    Shape(n=7, m=513, d=4, eps=1e-3, scale=1e3, coincident=True),
    Shape(n=7, m=513, d=9, eps=1e-4, scale=1e-3, empty="first"),
    Shape(n=5, m=513, d=784, eps=1e-4),
    Shape(n=5, m=513, d=784, eps=1e3),
    Shape(batch=3, n=13, m=511, d=8, eps=1e-2, empty="some"),
]


def nasty(function):
    """Besides random examples, the fixed ones."""
    for shape in NASTY:
        function = example(shape=shape)(function)
    return function


# Each operation against the specification.


@pytest.mark.parametrize("name", COSTS)
@settings(max_examples=12)
@nasty
@given(shape=SHAPES)
def test_reductions_over_points(instruction_set, dtype, name, shape):
    """Every operation of `PointReductions` is the reference's, in every shape, at every ε."""
    case = make(shape, dtype, EXPONENT[name], NATIVE)
    pairs = native.PointReductions(case.x, case.y, find_cost(name))
    check_all(pairs, case, dtype)
    check_gradient(pairs, case, EXPONENT[name], dtype)
    check_derivatives(pairs, case, EXPONENT[name], dtype)
    # Costs are formed without products: nothing cancels.
    check("costs", pairs.costs(), case.C, math.sqrt(shape.d) * case.C, dtype)


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("d", [3, 8, 12, 70])
@pytest.mark.parametrize("rest", [("dx",), ("dy",), ("dx", "dy")])
def test_tangents_with_points_at_rest(instruction_set, dtype, name, d, rest):
    """Less is computed for a side that does not move, and it is told from the numbers for each problem by itself."""
    case = make(Shape(batch=2, n=13, m=130, d=d), dtype, EXPONENT[name], NATIVE)
    along = Directions.of(case, dtype)
    for moves in rest:
        getattr(along, moves)[1] = 0
    check_tangents(native.PointReductions(case.x, case.y, find_cost(name)), case, EXPONENT[name], dtype, along)


@settings(max_examples=6)
@nasty
@given(shape=SHAPES)
def test_reductions_over_a_matrix(instruction_set, dtype, shape):
    """Every operation of `MatrixReductions`, and costs are those given."""
    case = make(shape, dtype, 2, NATIVE, matrix=True)
    pairs = native.MatrixReductions(case.C.to(dtype))
    check_all(pairs, case, dtype)
    assert torch.equal(pairs.costs().double(), case.C)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("name", COSTS)
@settings(max_examples=5)
@given(shape=SHAPES)
def test_points_far_from_the_origin(instruction_set, dtype, name, offset, shape):
    """A geometry measures distances between the very numbers it is given: its centre costs a unit of the centred
    coordinates, not of the given ones."""
    case = make(replace(shape, scale=1.0, coincident=False), dtype, EXPONENT[name], NATIVE)
    x, y = case.x + offset, case.y + offset
    geometry = CloudGeometry(x, y, find_cost(name))
    C = exact_costs(x, y, EXPONENT[name])
    center = y.double().mean(1, keepdim=True)
    eps, h = case.eps.double(), case.h.double()
    lost = lost_units(x.double() - center, y.double() - center, C, eps, EXPONENT[name], centred=True)
    expected = reference.MatrixReductions(C).softmin(h, eps)
    units = 1 + torch.where(h.isinf(), 0.0, h.abs())[:, None] + (C + lost) / eps[:, :, None]
    mean = torch.softmax(h[:, None] - C / eps[:, :, None], -1)
    bound = eps * (mean * units).sum(-1) + expected.abs()
    check("softmin", geometry.softmin(case.h, case.eps, 0), expected, bound, dtype)


@pytest.mark.parametrize("d", [9, 100])
@pytest.mark.parametrize("eps", [1e-4, 1e-2, 1.0, 1e4])
def test_near_points_in_high_dimension(instruction_set, dtype, d, eps):
    """Where a product of coordinates would cancel the digits that count, differences are formed: points far from the
    origin see their neighbours as clearly as those around it do."""
    x = 10 + cloud(808, 20, d, dtype=dtype)[None]
    y = x + 1e-2 * cloud(809, 20, d, dtype=dtype)[None]
    eps = torch.tensor([[eps]], dtype=dtype)
    h = torch.full((1, 20), -math.log(20), dtype=dtype)
    C = exact_costs(x, y, 2)
    units = 1 + math.log(20) + (C + lost_units(x, y, C, eps, 2)) / eps.double()
    expected = reference.MatrixReductions(C).softmin(h.double(), eps.double())
    mean = torch.softmax(h.double()[:, None] - C / eps.double(), -1)
    bound = eps.double() * (mean * units).sum(-1) + expected.abs()
    check("softmin", native.PointReductions(x, y, find_cost("sqeuclidean")).softmin(h, eps), expected, bound, dtype)


# Long sums.


@pytest.mark.parametrize("d", [1, 2, 3, 9])
@pytest.mark.parametrize("equal", [True, False])
def test_long_sums_keep_their_digits(instruction_set, dtype, d, equal):
    """A sum over 200,000 columns is off by what its exponents are off, not by 200,000 roundings."""
    n, m = 3, 200_000
    x, y = cloud(800, n, d, dtype=dtype)[None], cloud(801, m, d, dtype=dtype)[None]
    if equal:
        y = y[:, :1].expand(1, m, d)
    h = torch.full((1, m), -math.log(m), dtype=dtype)
    eps = torch.tensor([[0.1]], dtype=dtype)
    C = exact_costs(x, y, 2)
    lost = lost_units(x, y, C, eps, 2)
    expected = reference.MatrixReductions(C).softmin(h.double(), eps.double())
    mean = torch.softmax(h.double()[:, None] - C / eps.double(), -1)
    bound = eps.double() * (mean * (1 + h.double().abs()[:, None] + (C + lost) / eps.double())).sum(-1)
    check("softmin", native.PointReductions(x, y, find_cost("sqeuclidean")).softmin(h, eps), expected, bound, dtype)


def test_exponential_is_rounded_well(instruction_set, dtype):
    """Exponents within ±0.3, whose own rounding is below a unit: up to 2 units were seen in float32, 1 in float64."""
    h = torch.linspace(-0.3, 0.3, 20_001, dtype=dtype)[None]
    u, eps = torch.zeros(1, 1, dtype=dtype), torch.ones(1, 1, dtype=dtype)
    _, entries = native.MatrixReductions(torch.zeros(1, 1, 20_001, dtype=dtype)).marginals(u, h, eps)
    expected = h.double().exp()
    assert float(((entries.double() - expected).abs() / expected).max()) <= 2.5 * torch.finfo(dtype).eps


# What is too small is nothing.


def test_plan_entries_below_the_range_are_exact_zeros(instruction_set, dtype):
    """A result is never subnormal, and entries whose exponents are below the range are 0, as in the reference."""
    C = torch.linspace(0, 4 * -math.log(torch.finfo(dtype).tiny), 4001, dtype=dtype)[None, None]
    u, h, eps = torch.zeros(1, 1, dtype=dtype), torch.zeros(1, 4001, dtype=dtype), torch.ones(1, 1, dtype=dtype)
    tiny = torch.finfo(dtype).tiny
    pairs = native.MatrixReductions(C)
    _, columns = pairs.marginals(u, h, eps)
    identity = pairs.plan_product(u, h, eps, torch.eye(4001, dtype=dtype)[None, :, ::100])[0, 0]
    for entries, cost in (
        (columns[0], C[0, 0]),
        (identity, C[0, 0, ::100]),
        (pairs.plan_matrix(u, h, eps)[0, 0], C[0, 0]),
    ):
        assert ((entries == 0) | (entries >= tiny)).all()
        assert (entries[cost > -math.log(tiny)] == 0).all()
        assert (entries[cost < -math.log(8 * tiny)] > 0).all()


@pytest.mark.parametrize("m", [1, 7, 513, 1025])
@pytest.mark.parametrize("d", [2, 5, 40])
def test_zero_weights_carry_no_mass(instruction_set, dtype, m, d):
    """Columns without weight: even at no distance and with a potential that would call for mass, exactly none; and the
    softmin does not see them."""
    x = cloud(802, 7, d, dtype=dtype)[None]
    y = cloud(803, m, d, dtype=dtype)[None].clone()
    b = weights(803, m, dtype=dtype)[None].clone()
    if m > 1:
        y[:, ::2], b[:, ::2] = x[:, :1], 0.0
    empty = b[0] == 0
    h, eps = b.log() + 50 * (b == 0), torch.full((1, 1), 0.05, dtype=dtype)
    pairs = native.PointReductions(x, y, find_cost("sqeuclidean"))
    u = pairs.softmin(h, eps) / eps
    rows, columns = pairs.marginals(u, h, eps)
    assert (columns[0, empty] == 0).all()
    assert (columns[0, ~empty] >= 0).all()
    torch.testing.assert_close(rows, torch.ones_like(rows), rtol=0, atol=100 * torch.finfo(dtype).eps / 0.05)
    v = torch.zeros(1, m, 2, dtype=dtype)
    v[0, empty] = 1e10
    assert (pairs.plan_product(u, h, eps, v) == 0).all()
    seen = native.PointReductions(x, y[:, ~empty], find_cost("sqeuclidean")).softmin(h[:, ~empty], eps)
    torch.testing.assert_close(pairs.softmin(h, eps), seen, rtol=0, atol=20 * torch.finfo(dtype).eps)
    without = torch.full_like(u, -torch.inf)
    assert all((mass == 0).all() for mass in pairs.marginals(without, h, eps))


# Whole solves.


def native_solve(problem, limits, start=None):
    assert small.engine_of([problem], limits) is not None
    return solve([problem], limits, [start], [False])[0]


def python_solve(problem, limits, start=None):
    """The same algorithm in Python, on native passes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole, "ENTRIES", 0)
        return solve([problem], limits, [start], [False])[0]


@needs_native
@settings(max_examples=100)
@given(kind=KINDS, tol=st.sampled_from([1e-3, 1e-6, 1e-9]))
def test_small_solver_is_the_solver(kind, tol):
    """Native and Python: the same passes, status, history and numbers, problem by problem."""
    problem, limits = transport_problem(kind), Limits(tol, 2000)
    assert_same_solution(native_solve(problem, limits), python_solve(problem, limits), problem, limits)


@needs_native
@pytest.mark.parametrize("max_passes", [1, 2, 3, 4, 5, 9, 12])
@pytest.mark.parametrize("form", ["points", "symmetric"])
def test_small_solver_keeps_the_limits_of_the_solver(max_passes, form):
    """With a few passes only, both spend the same ones."""
    problem = transport_problem(Kind(batch=2, n=20, m=15, eps=0.01, form=form))
    limits = Limits(1e-9, max_passes)
    assert_same_solution(native_solve(problem, limits), python_solve(problem, limits), problem, limits)


@needs_native
@pytest.mark.parametrize("form", ["points", "symmetric"])
def test_small_solver_out_of_reach(instruction_set, dtype, form):
    """A tolerance below the arithmetic: all passes are spent, the best iterate is kept, the status says why."""
    problem = transport_problem(Kind(n=20, m=15, eps=0.01, form=form), dtype)
    solution = native_solve(problem, Limits(1e-30, 301))
    assert {str(status) for status in solution.status} == {str(sinkdiv.Status.PRECISION)}
    assert int(solution.passes) == (301 if form == "symmetric" else 300) or float(solution.marginal_error) == 0
    assert len(solution.history) <= 301
    best = min(error for _, error in solution.history)
    assert float(solution.marginal_error) == pytest.approx(best, rel=1e-6)
    assert best <= 10 * torch.finfo(dtype).eps * (1 + 2 / 0.01)


@needs_native
def test_small_solver_on_every_instruction_set(instruction_set, dtype):
    """All find the same solution, by their own arithmetic."""
    for kind in (Kind(batch=2, n=33, m=30, eps=0.02), Kind(n=40, form="symmetric"), Kind(rho=(0.3, 2.0), eps=0.05)):
        tol = 1e-11 if dtype == torch.float64 else 1e-5
        solution = native_solve(transport_problem(kind, dtype), Limits(tol, 5000))
        exact = python_solve(transport_problem(kind), Limits(1e-11, 5000))
        assert all(status is sinkdiv.Status.CONVERGED for status in solution.status)
        # The value's error is of second order in the marginal error; rounding is that of costs of size 3.
        atol = 20 * torch.finfo(dtype).eps
        torch.testing.assert_close(solution.value.double(), exact.value, rtol=0, atol=atol)


def solve_natively(problem, eps, which=slice(None)):
    """The results, passes, errors and gradients that `native.solve_small` finds for some problems of a batch."""
    x, y, a, b = (t[which].contiguous() for t in (problem.geometry.x, problem.geometry.y, problem.a, problem.b))
    pairs = native.PointReductions(x, x if problem.symmetric else y, problem.geometry.cost)
    batch, n, m = len(x), x.shape[1], y.shape[1]
    results = torch.empty(batch, 3 + 2 * (n if problem.symmetric else n + m), dtype=x.dtype)
    passes, errors = torch.empty(batch, dtype=torch.int64), torch.full((batch, 20), -1.0)
    gradient, eps = torch.empty_like(x), eps[which].contiguous()
    outputs = results, passes, errors
    made = native.small_batch(pairs, eps, problem.rho, problem.symmetric, (a, b), None, outputs, gradient)
    native.solve_small([made], x.dtype, 1e-6, 2000)
    return results, passes, errors, gradient


@needs_native
@pytest.mark.parametrize("form", ["points", "symmetric"])
@pytest.mark.parametrize("rho", [(math.inf, math.inf), (0.3, 0.3)])
@pytest.mark.parametrize("d", [2, 20])
def test_small_solver_with_an_eps_for_each_problem(dtype, form, rho, d):
    """A batch with different ε is solved as its problems are, one by one: bit for bit, for nothing is shared. The
    problems differ in how their costs are formed, too."""
    problem = transport_problem(Kind(batch=4, n=33, m=20, d=d, rho=rho, form=form, empty=True), dtype)
    eps = torch.tensor([0.01, 0.1, 0.03, 30.0], dtype=torch.float64)
    together = solve_natively(problem, eps)
    assert len(set(together[1].tolist())) > 1, "the problems must differ"
    for b in range(4):
        alone = solve_natively(problem, eps, slice(b, b + 1))
        for one, other in zip(together, alone, strict=True):  # errors are NaN above the target ε
            assert torch.equal(one[b : b + 1].nan_to_num(-2), other.nan_to_num(-2))


@needs_native
@pytest.mark.parametrize("d", [1, 3, 12, 13, 40])
@pytest.mark.parametrize("form", ["points", "symmetric"])
@pytest.mark.parametrize("name", COSTS)
def test_small_solver_brings_the_gradient_along(instruction_set, dtype, d, form, name):
    """Σ_j P_ij ∂c/∂x_i of the plan it returns, as a pass over this plan would find it; no mass, no gradient."""
    kind = Kind(batch=2, n=53, m=64, d=d, eps=0.1, name=name, form=form, empty=True)
    problem, limits = transport_problem(kind, dtype), Limits(1e-3, 2000)
    solution = solve([problem], limits, [None], [True])[0]
    plain = native_solve(problem, limits)
    assert plain.gradient is None
    assert torch.equal(solution.f, plain.f)
    x, y = problem.geometry.x, problem.geometry.y
    eps, C = torch.full((2, 1), kind.eps, dtype=dtype), exact_costs(x, y, EXPONENT[name])
    lost = lost_units(x, y, C, eps, EXPONENT[name])
    u, h = problem.a.log() + solution.f / eps, problem.b.log() + solution.g / eps
    log_u, log_h = solution.f / eps, solution.g / eps
    case = Case(x, y, problem.a, problem.b, u, h, log_u, log_h, eps, C, lost, NATIVE)

    class Given:
        @staticmethod
        def plan_gradient(*_):
            return solution.gradient

    check_gradient(Given, case, EXPONENT[name], dtype)
    assert (solution.gradient[:, -1] == 0).all()
    matrix = transport_problem(Kind(form="matrix"), dtype)
    assert solve([matrix], limits, [None], [True])[0].gradient is None


@needs_native
@pytest.mark.parametrize("offset", [3.0, 30.0])
def test_no_error_is_made_up_where_all_mass_underflows(dtype, offset):
    """Marginals so soft and far apart that all mass underflows: what is left of it is measured relative to itself."""
    x, y = cloud(804, 20, dtype=dtype, batch=2), cloud(805, 30, dtype=dtype, batch=2) + offset
    a, b = torch.full((2, 20), 1 / 20, dtype=dtype), torch.full((2, 30), 1 / 30, dtype=dtype)
    problem = Problem(CloudGeometry(x, y, find_cost("sqeuclidean")), a, b, (1e-3,) * len(a), (1e-3, 1e-3))
    junk = [torch.full((2, size), -0.5, dtype=dtype) for size in (1, 20, 30) for _ in range(100)]
    del junk  # memory that is not initialised would now look like numbers
    ours, theirs = (solver(problem, Limits(1e-3, 200)) for solver in (native_solve, python_solve))
    assert ours.status == theirs.status
    assert torch.equal(ours.marginal_error.isfinite(), theirs.marginal_error.isfinite())
    assert ours.f.isfinite().all()
    torch.testing.assert_close(ours.value, theirs.value, rtol=1e-5, atol=0)


@needs_native
def test_any_number_of_passes_may_be_allowed():
    """Memory follows the passes that are spent, not those that are allowed."""
    problem = transport_problem(Kind())
    assert int(native_solve(problem, Limits(1e-3, 10**13)).passes) < 100


@pytest.mark.parametrize("solver", [pytest.param(native_solve, marks=needs_native), python_solve])
@pytest.mark.parametrize("form", ["points", "symmetric"])
@pytest.mark.parametrize("rho", [(math.inf, math.inf), (0.3, 0.3)])
def test_starts(solver, dtype, form, rho):
    """From the solution itself one or two steps are enough; from nonsense of size 10³ ε the solve converges all the
    same, to the same value up to second order in the tolerance and rounding."""
    problem = transport_problem(Kind(n=40, m=30, eps=0.05, rho=rho, form=form), dtype)
    limits = Limits(1e-8 if dtype == torch.float64 else 1e-3, 2000)
    cold = solver(problem, limits)
    warm = solver(problem, limits, Start(cold.g))
    assert int(warm.passes) <= 4 < int(cold.passes)
    generator = torch.Generator().manual_seed(0)
    g = 1e3 * problem.eps[0] * torch.randn(problem.b.shape, generator=generator, dtype=torch.float64)
    lost = solver(problem, limits, Start(g.to(dtype)))
    assert all(solution.status == (sinkdiv.Status.CONVERGED,) for solution in (cold, warm, lost))
    # Where marginals are hard, the constant in nonsense of size 50 stays, and the value carries units of it.
    atol = 200 * torch.finfo(dtype).eps
    torch.testing.assert_close(warm.value, cold.value, rtol=0, atol=atol)
    torch.testing.assert_close(lost.value, cold.value, rtol=0, atol=atol)


@needs_native
@pytest.mark.parametrize(("eps", "rho"), [(0.07, 0.015), (0.05, 0.02), (0.5, 0.05)])
def test_soft_marginals_of_samples_far_apart(dtype, eps, rho):
    """Costs of some hundred ρ: hardly any mass is worth moving, and weights times exp(−g/ρ), which choose the constant
    in the potentials, are beyond the range of float32 until it is chosen."""
    x, y = cloud(806, 20, dtype=dtype)[None], cloud(807, 30, dtype=dtype)[None] + 3
    a, b = weights(806, 20, dtype=dtype)[None], weights(807, 30, dtype=dtype)[None]
    geometry, limits = CloudGeometry(x, y, find_cost("sqeuclidean")), Limits(1e-3, 300)
    problem = Problem(geometry, a, b, (eps,) * len(a), (rho, rho))
    ours, theirs = native_solve(problem, limits), python_solve(problem, limits)
    assert ours.status == theirs.status == (sinkdiv.Status.CONVERGED,)
    assert ours.passes.tolist() == theirs.passes.tolist()
    torch.testing.assert_close(ours.value, theirs.value, rtol=0, atol=20 * torch.finfo(dtype).eps)


# Which kernels a call runs on.


def test_the_extension_is_built():
    """The tests of this file are about it."""
    assert native.available, (
        "the native extension is not built: `pip install -e .` needs a C++17 compiler (GCC or Clang) and CMake, "
        "and says what failed with `pip install -v -e .`"
    )


@needs_native
def test_info_names_the_native_kernels(capsys):
    assert run(["info"]) == 0
    assert f"native (C++, {native.instruction_set()}" in capsys.readouterr().out


@needs_native
def test_a_divergence_of_small_samples_is_one_native_call(monkeypatch):
    """Its three problems are solved together; no pass runs outside of it."""
    calls, solve_small = [], native.solve_small
    monkeypatch.setattr(
        native, "solve_small", lambda batches, *more: calls.append(len(batches)) or solve_small(batches, *more)
    )
    for kernel in (native._Reductions, reference.TiledReductions):
        monkeypatch.setattr(kernel, "softmin", None)
    x, y = cloud(810, 50, 3, dtype=torch.float32), cloud(811, 40, 3, dtype=torch.float32)
    assert sinkdiv.sinkhorn_divergence(x, y, blur=0.2) > 0
    assert calls == [3]


@needs_native
@pytest.mark.parametrize("d", [3, 30])
def test_large_problems_run_native_passes(monkeypatch, dtype, d):
    """Pass by pass, and none by the reference."""
    monkeypatch.setattr(whole, "ENTRIES", 0)
    for name in ("softmin", "plan_product", "plan_gradient", "marginals"):
        monkeypatch.setattr(reference.PointReductions, name, None)
    calls, softmin = [], native._native.softmin
    monkeypatch.setattr(native._native, "softmin", lambda *arguments: calls.append(1) or softmin(*arguments))
    x, y = cloud(812, 50, d, dtype=dtype).requires_grad_(), cloud(813, 40, d, dtype=dtype)
    solved = sinkdiv.solve_divergence(x, y, blur=0.2)
    solved.value.backward()
    assert len(calls) == solved.ab.passes + solved.aa.passes + solved.bb.passes
    assert x.grad.isfinite().all()


def test_without_the_extension_the_reference_serves(without_native, dtype):
    """The same answers, a little later; `describe` says why."""
    devices = dict(kernels.describe())
    assert devices["cpu"].endswith("the native extension was not built")
    x, y = cloud(814, 30, dtype=dtype).requires_grad_(), cloud(815, 20, dtype=dtype)
    assert isinstance(kernels.of_points(x[None], y[None], find_cost("sqeuclidean")), reference.PointReductions)
    assert isinstance(kernels.of_matrix(torch.ones(1, 2, 3, dtype=dtype)), reference.MatrixReductions)
    t = sinkdiv.solve(x, y, blur=0.3)
    assert t.converged
    lower, upper = t.bounds
    assert lower <= upper
    t.value.backward()
    assert x.grad.isfinite().all()
    assert t.apply(y).shape == (30, 2)


@needs_native
def test_what_native_kernels_do_not_know_goes_to_the_reference():
    """Dtypes other than float32 and float64, and costs of others."""
    assert not native.serves(torch.ones(1, dtype=torch.float16))
    assert not native.serves(torch.ones(1, device="meta"))
    assert not native.knows(object())
    with pytest.raises(ValueError, match="instruction set"):
        native._native.use_instruction_set("abacus")


# Memory and threads.


def all_operations(pairs, u, h, eps, v, gradient=True):
    """The results of every operation, in a list."""
    a, b = u.exp(), h.exp()
    return [
        pairs.softmin(h, eps),
        pairs.plan_product(u, h, eps, v),
        pairs.cost_product(u, h, eps, v),
        pairs.plan_cost(u, h, eps),
        pairs.plan_matrix(u, h, eps),
        *pairs.marginals(u, h, eps),
        pairs.weighted_plan(u, h, eps, u, h),
        pairs.corrected_primal(a, b, u, h, eps, a, b),
        pairs.costs(),
        *([pairs.plan_gradient(u, h, eps)] if gradient else []),
    ]


@needs_native
def test_tensors_of_any_strides_are_read_and_none_is_written(dtype):
    """Transposed, strided, expanded and offset tensors give what their copies give, bit for bit."""
    long = cloud(820, 26, 60, dtype=dtype)
    x = long[7:20].T[None, ::2].expand(2, 30, 13)
    y = cloud(821, 80, 26, dtype=dtype, batch=2)[:, 1::2, ::2]
    h, u = cloud(822, 40, 2, dtype=dtype).T, cloud(823, 1, 30, dtype=dtype).expand(2, 30)
    v, eps = cloud(824, 5, 40, dtype=dtype, batch=2).mT, torch.tensor(0.7, dtype=dtype).expand(2, 1)
    for make_pairs, sources in (
        (lambda x, y: native.PointReductions(x, y, find_cost("sqeuclidean")), (x, y)),
        (native.MatrixReductions, (cloud(825, 80, 30, dtype=dtype, batch=2).mT[:, :, ::2],)),
    ):
        given = (*sources, u, h, eps, v)
        assert not any(tensor.is_contiguous() for tensor in given)
        copies = [tensor.clone(memory_format=torch.contiguous_format) for tensor in given]
        points = len(sources) == 2
        strided = all_operations(make_pairs(*sources), u, h, eps, v, points)
        packed = all_operations(make_pairs(*copies[: len(sources)]), *copies[len(sources) :], points)
        assert all(torch.equal(one, other) for one, other in zip(strided, packed, strict=True))
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(given, copies, strict=True))


@needs_native
@pytest.mark.parametrize("d", [3, 20])
def test_rows_do_not_depend_on_the_number_of_threads(threads, dtype, d):
    """Each row is reduced by one thread, in one order."""
    x, y = cloud(826, 900, d, dtype=dtype)[None], cloud(827, 1100, d, dtype=dtype)[None]
    h, eps = torch.zeros(1, 1100, dtype=dtype), torch.full((1, 1), 0.1, dtype=dtype)
    results, columns = [], []
    for count in (1, 3):
        threads(count)
        pairs = native.PointReductions(x, y, find_cost("sqeuclidean"))
        u = -pairs.softmin(h, eps)
        sums = (
            pairs.marginals(u, h, eps),
            pairs.weighted_marginals(u, h, eps, u, h),
            pairs.tangent_marginals(u, h, eps, x + 1, y),
        )
        results.append((
            u, pairs.plan_gradient(u, h, eps), pairs.plan_cost(u, h, eps), *(rows for rows, _ in sums),
            pairs.weighted_gradient(u, h, eps, u, h), pairs.gradient_tangent(u, h, eps, u, h, x + 1, y),
        ))  # fmt: skip
        columns.append(sums[0][1])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    # Column sums are made of one part for each thread, and each of up to 225 groups of rows, in float64.
    rtol = 16 * torch.finfo(torch.float64).eps + torch.finfo(dtype).eps
    torch.testing.assert_close(*columns, rtol=rtol, atol=0)


@needs_native
def test_a_batch_is_solved_the_same_on_any_number_of_threads(threads):
    problem, solutions = transport_problem(Kind(batch=3, n=90, m=64, eps=0.01)), []
    for count in (1, 3):
        threads(count)
        fresh = CloudGeometry(problem.geometry.x, problem.geometry.y, find_cost("sqeuclidean"))
        solutions.append(
            native_solve(Problem(fresh, problem.a, problem.b, problem.eps, problem.rho), Limits(1e-6, 2000))
        )
    one, other = solutions
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("f", "g", "value", "passes"))


@needs_native
def test_other_python_threads_go_on_meanwhile():
    """The interpreter is free during a call: a thread that counts goes on counting."""
    counted, done = [0], threading.Event()

    def count():
        while not done.wait(0.002):
            counted[0] += 1

    x = cloud(828, 20_000, 3, dtype=torch.float32)[None]
    pairs = native.PointReductions(x, x, find_cost("sqeuclidean"))
    h, eps = torch.zeros(1, 20_000), torch.full((1, 1), 0.1)
    thread = threading.Thread(target=count)
    thread.start()
    try:
        before = counted[0]
        pairs.softmin(h, eps)
        during = counted[0] - before
    finally:
        done.set()
        thread.join()
    # A call takes a hundred milliseconds or more; without the interpreter the thread could count to 1.
    assert during >= 5


@needs_native
def test_calls_from_several_python_threads_do_not_meet():
    """Nothing is shared between two calls."""
    x, y = cloud(829, 300, 3, dtype=torch.float32)[None], cloud(830, 600, 3, dtype=torch.float32)[None]
    h, eps = torch.zeros(1, 600), torch.full((1, 1), 0.1)
    pairs = native.PointReductions(x, y, find_cost("sqeuclidean"))
    expected, results = pairs.softmin(h, eps), []
    workers = [
        threading.Thread(target=lambda: results.extend(pairs.softmin(h, eps) for _ in range(20))) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 60
    assert all(torch.equal(result, expected) for result in results)


INTERRUPTED = """
import os, signal, sys, threading, time
import torch
from sinkdiv.costs import find_cost
from sinkdiv.geometry import CloudGeometry
from sinkdiv.kernels import native
from sinkdiv.solvers import Limits, Problem, solve

torch.set_num_threads(int(sys.argv[1]))
sent = []

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits that it is ignored

def interrupt():
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

def measure(work):
    threading.Timer(0.5, interrupt).start()
    try:
        work()
    except KeyboardInterrupt:
        print(time.monotonic() - sent[-1])
    else:
        print("finished")

x = torch.rand(1, 200_000, 3)
pairs = native.PointReductions(x, x, find_cost("sqeuclidean"))
measure(lambda: pairs.softmin(torch.zeros(1, 200_000), torch.full((1, 1), 0.1)))

x, y, a = torch.rand(4, 500, 3), torch.rand(4, 500, 3), torch.full((4, 500), 1 / 500)
problem = Problem(CloudGeometry(x, y, find_cost("sqeuclidean")), a, a, (0.01,) * len(a), (float("inf"),) * 2)
measure(lambda: solve([problem], Limits(1e-30, 10**6), [None], [False]))
same = CloudGeometry(x, x, find_cost("sqeuclidean"))
one = Problem(same, a, a, problem.eps, problem.rho)
measure(lambda: solve([one], Limits(1e-30, 10**6), [None], [False]))
"""


@needs_native
@pytest.mark.parametrize("count", [1, 3])
def test_ctrl_c_ends_a_native_call(count):
    """A pass over 4·10¹⁰ pairs and two solves of 10⁶ passes each end soon after SIGINT, as a KeyboardInterrupt."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(count)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    seconds = done.stdout.split()
    assert len(seconds) == 3
    assert all(float(second) < 3 for second in seconds), seconds


@needs_native
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_computes_as_its_parent(threads):
    """Data loaders fork: no thread or lock of the parent is missed in the child."""
    threads(3)
    x, y = cloud(831, 300, 3, dtype=torch.float32), cloud(832, 400, 3, dtype=torch.float32)
    pairs = native.PointReductions(x[None], y[None], find_cost("sqeuclidean"))
    problem = transport_problem(Kind(batch=3, n=90, m=64, eps=0.05))
    threads(1)  # PyTorch's own pool does not survive a fork; the pairs above keep their three threads
    h, eps = torch.zeros(1, 400), torch.full((1, 1), 0.1)

    def work():
        return pairs.softmin(h, eps), native_solve(problem, Limits(1e-6, 2000)).value

    expected = work()

    def child():
        sys.exit(0 if all(torch.equal(*pair) for pair in zip(work(), expected, strict=True)) else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode == 0
