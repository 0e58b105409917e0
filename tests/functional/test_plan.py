"""The plan as an operator, against the plan as a matrix."""

import pytest
import torch

import sinkdiv
from problems import CLOSE, array, cloud, costs, tight, weights

COSTS = ["sqeuclidean", "euclidean"]
RHOS = [None, 0.5, (0.3, 2.0)]


@pytest.fixture(params=["single", "batch"])
def batch(request):
    return None if request.param == "single" else 3


@pytest.fixture(params=RHOS, ids=["balanced", "unbalanced", "unbalanced pair"])
def rho(request):
    return request.param


def solved(dtype, batch, rho, *, tol=None, name="sqeuclidean"):
    inputs = (
        cloud(90, 9, batch=batch, dtype=dtype) + 2,
        cloud(91, 7, batch=batch, dtype=dtype) + 2.3,
        weights(90, 9, batch=batch, dtype=dtype),
        weights(91, 7, mass=1.0 if rho is None else 1.5, batch=batch, dtype=dtype),
    )
    options = tight(dtype) if tol is None else {"tol": tol}
    return inputs, sinkdiv.solve(*inputs, eps=0.1, rho=rho, cost=name, **options)


def close(found, expected, dtype, scale=1.0):
    torch.testing.assert_close(found, expected, rtol=0, atol=scale * CLOSE[dtype])


@pytest.mark.parametrize("tol", [1e-1, 1e-3, None])
def test_reported_marginals_are_those_of_the_plan(dtype, route, batch, rho, tol):
    """At any tolerance: actual sums, not the ones that were asked for."""
    _, t = solved(dtype, batch, rho, tol=tol)
    rows, columns = t.marginals()
    close(t.plan().sum(-1), rows, dtype)
    close(t.plan().sum(-2), columns, dtype)


@pytest.mark.parametrize("tol", [1e-1, None])
def test_plan_is_the_exponential_of_its_potentials(dtype, route, batch, rho, tol):
    """P_ij = a_i b_j exp((f_i + g_j − C_ij)/ε), from the returned potentials and scipy's costs, at any tolerance."""
    (x, y, a, b), t = solved(dtype, batch, rho, tol=tol)
    samples = [(x, y, a, b, t.f, t.g, t.plan())] if batch is None else zip(x, y, a, b, t.f, t.g, t.plan(), strict=True)
    for x, y, a, b, f, g, plan in samples:
        exponent = (f.double()[:, None] + g.double()[None, :] - torch.tensor(costs(x, y))) / 0.1
        expected = a.double()[:, None] * b.double()[None, :] * exponent.exp()
        close(plan.double(), expected, dtype)


def test_products_with_the_plan(dtype, route, batch, rho):
    _, t = solved(dtype, batch, rho, tol=1e-2)
    P = t.plan()
    leading = () if batch is None else (batch,)
    for operand in (cloud(92, 7, 4, batch=batch, dtype=dtype), cloud(93, 7, batch=batch, dtype=dtype)[..., 0]):
        vector = operand.ndim == 1 + len(leading)
        expected = (P @ operand.unsqueeze(-1)).squeeze(-1) if vector else P @ operand
        assert t.apply(operand).shape == expected.shape
        close(t.apply(operand), expected, dtype)
    for operand in (cloud(94, 9, 4, batch=batch, dtype=dtype), cloud(95, 9, batch=batch, dtype=dtype)[..., 0]):
        vector = operand.ndim == 1 + len(leading)
        expected = (P.mT @ operand.unsqueeze(-1)).squeeze(-1) if vector else P.mT @ operand
        assert t.apply_transpose(operand).shape == expected.shape
        close(t.apply_transpose(operand), expected, dtype)


@pytest.mark.parametrize("name", COSTS)
def test_sharp_value_is_the_cost_of_the_plan(dtype, route, rho, name):
    (x, y, _, _), t = solved(dtype, None, rho, name=name, tol=1e-2)
    expected = float((array(t.plan()) * costs(x, y, name)).sum())
    assert float(t.sharp) == pytest.approx(expected, abs=CLOSE[dtype])


def test_barycentric_map_is_the_mean_of_where_mass_goes(dtype, route, batch, rho):
    """T(x_i) = Σ_j P_ij y_j / Σ_j P_ij."""
    (_, y, _, _), t = solved(dtype, batch, rho, tol=1e-2)
    P = t.plan()
    close(t.barycentric_map(), (P @ y) / P.sum(-1, keepdim=True), dtype, scale=5)


def test_barycentric_map_of_the_self_problem_of_a_translated_cloud(route):
    """Squared cost: T_ab(x_i) for α → α+τ is T_aa(x_i) + τ (mathematics, oracle 2 and §2.1)."""
    x, a, tau = cloud(96, 10), weights(96, 10), torch.tensor([1.0, -2.0], dtype=torch.float64)
    moved = sinkdiv.solve(x, x + tau, a, a.clone(), eps=0.2, **tight()).barycentric_map()
    still = sinkdiv.solve(x, x, a, a, eps=0.2, **tight()).barycentric_map()
    close(moved, still + tau, torch.float64, scale=10)


def test_barycentric_map_of_a_weightless_point_is_nan_and_only_there(route):
    x, y, a = cloud(97, 6), cloud(98, 5), weights(97, 6)
    mapped = sinkdiv.solve(torch.cat([x, x[:1]]), y, torch.cat([a, a.new_zeros(1)]), eps=0.2).barycentric_map()
    assert mapped[-1].isnan().all()
    assert mapped[:-1].isfinite().all()


@pytest.mark.parametrize("name", COSTS)
def test_potentials_at_the_points_are_the_potentials(dtype, route, batch, rho, name):
    """At convergence f is the softmin of g and g that of f."""
    (x, y, _, _), t = solved(dtype, batch, rho, name=name)
    close(t.potentials_at(x), t.f, dtype, scale=5)
    close(t.potentials_at(y, side=1), t.g, dtype, scale=5)


@pytest.mark.parametrize("name", COSTS)
def test_potentials_at_new_points_are_softmins(route, rho, name):
    """f(z) = −ε log Σ_j b_j exp((g_j − c(z,y_j))/ε), divided by 1 + ε/ρ where the marginal is soft."""
    (x, y, a, b), t = solved(torch.float64, None, rho, name=name)
    z = cloud(99, 4) * 3
    strengths = (None, None) if rho is None else rho if isinstance(rho, tuple) else (rho, rho)
    for side, points, w, other in ((0, y, b, t.g), (1, x, a, t.f)):
        terms = (other[None, :] - torch.tensor(costs(z, points, name))) / 0.1 + w.log()
        expected = -0.1 * torch.logsumexp(terms, 1)
        expected = expected if rho is None else expected / (1 + 0.1 / strengths[side])
        close(t.potentials_at(z, side=side), expected, torch.float64)


def test_matrix_problems_have_products_and_no_points():
    C = cloud(100, 6, 5)
    t = sinkdiv.solve_matrix(C, eps=0.1, **tight())
    close(t.apply(torch.ones(5, dtype=torch.float64)), t.plan().sum(1), torch.float64)
    close(t.apply_transpose(torch.ones(6, dtype=torch.float64)), t.plan().sum(0), torch.float64)
    with pytest.raises(ValueError, match="potentials_at"):
        t.potentials_at(C)
    with pytest.raises(ValueError, match="barycentric_map"):
        t.barycentric_map()


def test_operands_are_checked_at_the_door(batch):
    """Each message names the argument."""
    (x, _, _, _), t = solved(torch.float64, batch, None, tol=1e-2)
    leading = () if batch is None else (batch,)
    with pytest.raises(ValueError, match=r"\bv\b.*shape"):
        t.apply(torch.ones(*leading, 9).double())
    with pytest.raises(ValueError, match=r"\bu\b.*shape"):
        t.apply_transpose(torch.ones(*leading, 7).double())
    with pytest.raises(ValueError, match=r"points.*shape"):
        t.potentials_at(torch.ones(*leading, 4, 3).double())
    with pytest.raises(ValueError, match=r"points.*shape"):
        t.potentials_at(torch.ones(2).double())
    with pytest.raises(ValueError, match="side"):
        t.potentials_at(x, side=2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_operands_that_are_not_finite_are_refused(batch, bad):
    """NaN is bad input, and so is inf (design)."""
    (x, y, _, _), t = solved(torch.float64, batch, None, tol=1e-2)
    with pytest.raises(ValueError, match=r"\bv\b"):
        t.apply(y * bad)
    with pytest.raises(ValueError, match=r"\bu\b"):
        t.apply_transpose(x * bad)
    with pytest.raises(ValueError, match=r"points"):
        t.potentials_at(y * bad)


def test_operands_that_are_no_tensors_are_refused():
    _, t = solved(torch.float64, None, None, tol=1e-2)
    with pytest.raises(ValueError, match=r"\bv\b"):
        t.apply([1.0] * 7)
    with pytest.raises(ValueError, match=r"points"):
        t.potentials_at([[0.0, 0.0]])


def test_the_shown_form_tells_how_it_went(batch):
    """`repr` says the sizes and whether the solve converged."""
    _, t = solved(torch.float64, batch, None, tol=1e-2)
    assert "9×7" in repr(t)
    assert "converged" in repr(t)
    assert "not converged" not in repr(t)
