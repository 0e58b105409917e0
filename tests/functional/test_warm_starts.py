"""Warm starts from earlier solves, of functions and of modules: fewer passes, the same answers."""

import pytest
import torch

import sinkdiv
from problems import cloud, weights

INF = float("inf")


def moved(step, n=60, m=50):
    """The first of two clouds moves a little at each step."""
    return cloud(160, n, 3) + 0.01 * step, cloud(161, m, 3) + 0.2


@pytest.mark.parametrize("solve", [sinkdiv.solve, sinkdiv.solve_divergence])
@pytest.mark.parametrize("solver", [sinkdiv.Auto, sinkdiv.Sinkhorn])
def test_a_function_starts_from_an_earlier_problem(solve, solver):
    """A Transport or a Divergence; the tolerance holds all the same."""
    before = solve(*moved(0), blur=0.1)
    cold = sinkdiv.solve(*moved(1), blur=0.1)
    warm = sinkdiv.solve(*moved(1), blur=0.1, solver=solver(warm_start=before))
    assert warm.converged
    assert warm.passes < cold.passes
    torch.testing.assert_close(warm.value, cold.value, rtol=1e-4, atol=1e-6)
    loss = sinkdiv.sinkhorn_divergence(*moved(1), blur=0.1, solver=solver(warm_start=before))
    torch.testing.assert_close(loss, sinkdiv.sinkhorn_divergence(*moved(1), blur=0.1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("solver", [sinkdiv.Auto, sinkdiv.Sinkhorn, sinkdiv.Newton, sinkdiv.LBFGS])
@pytest.mark.parametrize("forbidden", [False, True])
def test_a_matrix_starts_from_one_of_its_shape(solver, forbidden):
    """Pairs may be forbidden; a problem of another shape begins anew."""
    C, a, b = torch.cdist(*moved(0)).square(), weights(0, 60), weights(1, 50)
    if forbidden:
        C[:30, :25] = INF
        C[30:, 25:] = INF
        a, b = (torch.cat([w[:half] / w[:half].sum(), w[half:] / w[half:].sum()]) for w, half in ((a, 30), (b, 25)))
    options = {"eps": 0.01, "tol": 1e-6}
    before = sinkdiv.solve_matrix(C, a, b, **options)
    cold = sinkdiv.solve_matrix(C * 1.001, a, b, **options, solver=solver())
    warm = sinkdiv.solve_matrix(C * 1.001, a, b, **options, solver=solver(warm_start=before))
    assert warm.converged
    assert warm.passes < cold.passes
    torch.testing.assert_close(warm.value, cold.value, rtol=1e-9, atol=1e-9)
    other = sinkdiv.solve_matrix(C[:20, :20].clamp(max=1.0), **options, solver=solver(warm_start=before))
    assert other.converged


def test_problems_of_a_list_start_from_one_each():
    xs, ys = zip(*(moved(0, n, m) for n, m in ((60, 50), (30, 40))), strict=True)
    later = [x + 0.01 for x in xs]
    before = sinkdiv.solve_divergence(xs, ys, blur=0.1)
    cold = sinkdiv.solve(later, ys, blur=0.1)
    warm = sinkdiv.solve(later, ys, blur=0.1, solver=sinkdiv.Auto(warm_start=before))
    assert all(one.passes < other.passes for one, other in zip(warm, cold, strict=True))
    with pytest.raises(ValueError, match=r"warm_start.*each of 2, not 1"):
        sinkdiv.solve(later, ys, blur=0.1, solver=sinkdiv.Auto(warm_start=before[0]))


def test_a_module_remembers_one_for_each_problem_of_a_list():
    criterion = sinkdiv.SinkhornDivergence(blur=0.1, solver=sinkdiv.Auto(warm_start=True))
    xs, ys = zip(*(moved(0, n, m) for n, m in ((60, 50), (30, 40))), strict=True)
    criterion(xs, ys)
    first = [sinkdiv.Transport(one).passes for one in criterion._earlier]
    found = criterion([x + 0.01 for x in xs], ys)
    second = [sinkdiv.Transport(one).passes for one in criterion._earlier]
    assert all(later < sooner for later, sooner in zip(second, first, strict=True))
    cold = sinkdiv.sinkhorn_divergence([x + 0.01 for x in xs], ys, blur=0.1)
    torch.testing.assert_close(found, cold, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(criterion(xs[0], ys[0]), sinkdiv.sinkhorn_divergence(xs[0], ys[0], blur=0.1))


@pytest.mark.parametrize("module", [sinkdiv.SinkhornDivergence, sinkdiv.TransportCost])
def test_a_module_may_begin_at_an_earlier_problem(module):
    """Its first call starts there, the next ones where the last has ended."""
    before = sinkdiv.solve(*moved(0), blur=0.1)
    cold = sinkdiv.solve(*moved(1), blur=0.1)
    criterion = module(blur=0.1, solver=sinkdiv.Auto(warm_start=before))
    criterion(*moved(1))
    assert sinkdiv.Transport(*criterion._earlier).passes < cold.passes
    assert "warm_start=True" in repr(criterion)


def test_functions_remember_nothing():
    for function in (sinkdiv.solve, sinkdiv.solve_divergence, sinkdiv.sinkhorn_divergence, sinkdiv.transport_cost):
        with pytest.raises(ValueError, match="warm_start=True is for modules"):
            function(*moved(0), blur=0.1, solver=sinkdiv.Auto(warm_start=True))
    with pytest.raises(ValueError, match="warm_start=True is for modules"):
        sinkdiv.solve_matrix(torch.ones(3, 3), eps=1.0, solver=sinkdiv.Auto(warm_start=True))
