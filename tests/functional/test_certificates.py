"""Intervals contain what they promise (mathematics, §4.1), whatever the tolerance, the dtype and the end of a solve."""

import itertools
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sinkdiv
from problems import cloud, tight, weights

COSTS = ["sqeuclidean", "euclidean"]
TOLERANCES = [1e-1, 1e-2, 1e-3]
RHOS = [None, 0.3, (0.2, 4.0)]


def problem(seed, dtype, *, mass=1.0, n=12, m=10, scale=1.0):
    """Two clouds with unequal weights, of which some are zero."""
    a, b = weights(seed, n - 1, dtype=dtype), weights(seed + 1, m - 2, mass=mass, dtype=dtype)
    x, y = cloud(seed, n, dtype=dtype), cloud(seed + 1, m, dtype=dtype) + 0.2
    return scale * x, scale * y, torch.cat([a.new_zeros(1), a]), torch.cat([b, b.new_zeros(2)])


def in_float64(x, y, a, b, balanced):
    """The same problem for the reference; balanced masses agree there to float64's last place."""
    x, y, a, b = (tensor.double() for tensor in (x, y, a, b))
    return x, y, a, b * (a.sum() / b.sum()) if balanced else b


def quietly(function):
    """What a call returns, whether or not it converged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sinkdiv.ConvergenceWarning)
        return function()


def assert_contains(bounds, reference):
    lower, upper = bounds
    assert lower.dtype == upper.dtype == torch.float64
    assert float(lower) <= float(reference) <= float(upper)


@pytest.mark.parametrize("tol", TOLERANCES)
@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("rho", RHOS)
@given(seed=st.integers(0, 999), eps=st.floats(0.05, 1.0))
def test_bounds_contain_the_value(dtype, route, name, rho, tol, seed, eps):
    """The reference is a float64 solve of the same problem to a marginal error of 1e-10."""
    inputs = problem(seed, dtype, mass=1.0 if rho is None else 1.6)
    options = {"eps": eps, "cost": name, "rho": rho}
    transport = sinkdiv.solve(*inputs, **options, tol=tol)
    reference = sinkdiv.transport_cost(*in_float64(*inputs, rho is None), **options, **tight())
    assert_contains(transport.bounds, reference)


@pytest.mark.parametrize("tol", TOLERANCES)
@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("rho", RHOS)
def test_bounds_contain_the_divergence(dtype, route, name, rho, tol):
    inputs = problem(70, dtype, mass=1.0 if rho is None else 1.6)
    options = {"eps": 0.1, "cost": name, "rho": rho}
    divergence = sinkdiv.solve_divergence(*inputs, **options, tol=tol)
    reference = sinkdiv.sinkhorn_divergence(*in_float64(*inputs, rho is None), **options, **tight())
    assert_contains(divergence.bounds, reference)


@pytest.mark.parametrize("tol", [1e-1, 1e-3])
@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("eps", [0.1, 10.0])
def test_reported_values_lie_in_their_own_intervals(dtype, name, rho, tol, eps):
    """A value that its own certificate excludes is a wrong number. At large ε few passes suffice for any tolerance."""
    inputs = problem(83, dtype, mass=1.0 if rho is None else 1.6)
    divergence = sinkdiv.solve_divergence(*inputs, eps=eps, cost=name, rho=rho, tol=tol)
    for result in (divergence.ab, divergence.aa, divergence.bb, divergence):
        lower, upper = result.bounds
        # The value is a float of size 1 + ε, computed in dtype; the bounds are float64.
        slack = 8 * torch.finfo(dtype).eps * (1 + eps)
        assert float(lower) - slack <= float(result.value) <= float(upper) + slack


@pytest.mark.parametrize("tol", TOLERANCES)
@pytest.mark.parametrize("rho", RHOS)
def test_bounds_of_a_matrix_problem(dtype, rho, tol):
    C, a, b = cloud(71, 9, 7, dtype=dtype), weights(71, 9, dtype=dtype), weights(72, 7, dtype=dtype)
    _, _, a64, b64 = in_float64(C, C, a, b, rho is None)
    transport = sinkdiv.solve_matrix(C, a, b, eps=0.05, rho=rho, tol=tol)
    reference = sinkdiv.solve_matrix(C.double(), a64, b64, eps=0.05, rho=rho, **tight()).value
    assert_contains(transport.bounds, reference)


@pytest.mark.parametrize("mass", [0.2, 5.0])
@pytest.mark.parametrize("tol", TOLERANCES)
def test_bounds_of_masses_other_than_one(dtype, route, mass, tol):
    x, y = cloud(73, 9, dtype=dtype), cloud(74, 8, dtype=dtype)
    a, b = weights(73, 9, mass=mass, dtype=dtype), weights(74, 8, mass=mass, dtype=dtype)
    reference = sinkdiv.transport_cost(*in_float64(x, y, a, b, True), eps=0.1, **tight())
    assert_contains(sinkdiv.solve(x, y, a, b, eps=0.1, tol=tol).bounds, reference)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("name", COSTS)
def test_bounds_include_the_rounding_of_float32_data(route, name, offset):
    """Matched points very close to each other in a wide cloud: the digits that decide are the last ones.

    Float32 cannot resolve an exponent of size spread/ε = 1e7, and the solve may say so; its interval holds anyhow.
    """
    spread = cloud(75, 12, dtype=torch.float32) * 100
    x = spread + offset
    y = x + 1e-3 * cloud(76, 12, dtype=torch.float32)
    options = {"eps": 1e-3, "cost": name}
    transport = quietly(lambda: sinkdiv.solve(x, y, **options, tol=1e-2))
    # At this ε a marginal error of 1e-7 in the reference is worth 1e-17 in its value.
    reference = sinkdiv.transport_cost(x.double(), y.double(), **options, tol=1e-7)
    assert_contains(transport.bounds, reference)


def test_bounds_include_the_rounding_of_coordinates_of_many_magnitudes(route):
    """Float32 resolves the points near the origin far better than the far ones: no digit of theirs may be lost."""
    near = torch.tensor([[0.0], [1e-4], [2e-4]], dtype=torch.float32)
    far = torch.tensor([[100.0]], dtype=torch.float32)
    x, y = torch.cat([near, far]), torch.cat([near + 3e-5, far])
    transport = quietly(lambda: sinkdiv.solve(x, y, eps=1e-9, tol=1e-2))
    reference = sinkdiv.transport_cost(x.double(), y.double(), eps=1e-9)
    assert_contains(transport.bounds, reference)


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("max_passes", [2, 3, 5, 10])
def test_bounds_hold_when_the_solve_was_cut_short(dtype, route, rho, max_passes):
    """Any potentials give a lower bound and, rounded, an upper one (Altschuler et al. 2017)."""
    inputs = problem(77, dtype, mass=1.0 if rho is None else 1.6)
    options = {"eps": 0.03, "rho": rho}
    with pytest.warns(sinkdiv.ConvergenceWarning):
        transport = sinkdiv.solve(*inputs, **options, tol=1e-9, solver=sinkdiv.Auto(max_passes=max_passes))
    reference = sinkdiv.transport_cost(*in_float64(*inputs, rho is None), **options, **tight())
    assert_contains(transport.bounds, reference)
    # The reported value is a dual value, hence a lower bound too.
    assert float(transport.value) <= float(reference) + 10 * torch.finfo(dtype).eps


@pytest.mark.parametrize("rho", RHOS)
def test_bounds_hold_when_the_callback_ended_the_solve(route, rho):
    """However early: here while ε is still far above its target."""
    inputs = problem(78, torch.float64, mass=1.0 if rho is None else 1.6)
    options = {"eps": 0.03, "rho": rho}
    transport = quietly(lambda: sinkdiv.solve(*inputs, **options, solver=sinkdiv.Auto(callback=lambda check: True)))
    reference = sinkdiv.transport_cost(*in_float64(*inputs, rho is None), **options, **tight())
    assert_contains(transport.bounds, reference)
    assert float(transport.value) <= float(reference) + 1e-12


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("rho", RHOS)
def test_interval_shrinks_with_the_tolerance(route, name, rho):
    """The width is of first order in the marginal error if balanced: 0.2 % of 1e-1 at 1e-10 is a wide margin."""
    inputs = problem(79, torch.float64, mass=1.0 if rho is None else 1.6)
    widths = []
    for tol in (1e-1, 1e-2, 1e-3, 1e-5, 1e-9):
        lower, upper = sinkdiv.solve(
            *inputs, eps=0.1, cost=name, rho=rho, tol=tol, solver=sinkdiv.Auto(max_passes=20_000)
        ).bounds
        widths.append(float(upper - lower))
    assert min(widths) >= 0
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(widths))
    assert widths[-1] < 1e-8


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("rho", RHOS)
def test_value_is_of_second_order_in_the_marginal_error(route, name, rho):
    """The dual value is stationary at the optimum: its error is below C·error², with C of the size of the costs/ε."""
    inputs = problem(80, torch.float64, mass=1.0 if rho is None else 1.6)
    options = {"eps": 0.1, "cost": name, "rho": rho}
    reference = float(sinkdiv.transport_cost(*inputs, **options, **tight()))
    for tol in (1e-2, 1e-3, 1e-4):
        transport = sinkdiv.solve(*inputs, **options, tol=tol)
        assert -1e-12 <= reference - float(transport.value) <= 30 * tol**2


def test_self_problem_has_bounds(dtype, route):
    """The symmetric solver's single potential makes a certificate like any other."""
    x, _, a, _ = problem(81, dtype)
    for tol in TOLERANCES:
        transport = sinkdiv.solve(x, x, a, a, eps=0.1, tol=tol)
        reference = sinkdiv.transport_cost(x.double(), x.double(), a.double(), a.double(), eps=0.1, **tight())
        assert_contains(transport.bounds, reference)


def test_bounds_do_not_depend_on_autograd(route):
    """They are numbers: no graph, and the same under no_grad."""
    inputs = [tensor.requires_grad_(tensor.ndim == 2) for tensor in problem(82, torch.float64)]
    transport = sinkdiv.solve(*inputs, eps=0.1)
    lower, upper = transport.bounds
    assert not lower.requires_grad
    assert not upper.requires_grad
    with torch.no_grad():
        assert transport.bounds == (lower, upper)
