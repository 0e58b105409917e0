"""A geometry that the package does not know solves, certifies, and is differentiated in its weights.

Nothing is said of it anywhere but in its own file: that is what the protocol promises. The answers are those of the
same costs given as a matrix.
"""

from dataclasses import dataclass, replace

import pytest
import torch

import sinkdiv
from problems import centred, slope, weights
from ring import RingGeometry
from sinkdiv import Auto, Newton, Sinkhorn, Status
from sinkdiv.differentiable import DifferentiableSolution
from sinkdiv.geometry.choice import GEOMETRIES
from sinkdiv.options import MatrixOptions, Settings, settled
from sinkdiv.solvers import Limits, Problem, solve, solve_stored
from sinkdiv.solving import solve_posed

TOL, N = 1e-9, 12


@dataclass(frozen=True)
class OnRings:
    """Weights on rings, as a user would give them; there is nothing else to differentiate."""

    a: torch.Tensor
    b: torch.Tensor
    batched: bool = True
    dtype: torch.dtype = torch.float64
    unit_masses: bool = False

    @property
    def tensors(self):
        return self.a, self.b

    def detached(self):
        return replace(self, a=self.a.detach(), b=self.b.detach())


def geometry(batch=2):
    return RingGeometry(torch.linspace(1.0, 2.0, batch, dtype=torch.float64), N)


def solved(a, b, eps, rho=(torch.inf, torch.inf), tol=TOL):
    ring = geometry(len(a))
    problem = Problem(ring, a.detach(), b.detach(), eps, rho)
    (solution,) = solve([problem], Limits(tol, 5000), [None], [False])
    assert set(solution.status) == {Status.CONVERGED}
    settings = Settings(cost=None, eps=eps[0], rho=rho, tol=tol, solver=Auto())
    return DifferentiableSolution(problem, solution, OnRings(a, b), settings)


@pytest.fixture(params=[None, (0.5, 0.5), (0.5, 2.0)], ids=["balanced", "unbalanced", "two strengths"])
def rho(request):
    return request.param


@pytest.fixture
def masses(rho):
    a, b = weights(400, N, batch=2), weights(401, N, batch=2)
    return a, b if rho is None else 1.3 * b


EPS = (0.02, 0.05)


def of_matrix(a, b, rho):
    return sinkdiv.solve_matrix(geometry().matrix(), a, b, eps=torch.tensor(EPS, dtype=torch.float64), rho=rho, tol=TOL)


def hard(rho):
    return (torch.inf, torch.inf) if rho is None else rho


def test_solves(masses, rho):
    """Values and potentials of the dense problem, each at its own ε."""
    found, expected = solved(*masses, EPS, hard(rho)), of_matrix(*masses, rho)
    torch.testing.assert_close(found.value, expected.value, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.sharp, expected.sharp, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.f(), expected.f, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.g(), expected.g, rtol=0, atol=1e-7)


def test_the_plan_is_an_operator(masses, rho):
    """Products with the plan need no matrix, and there is none to ask for."""
    found, expected = solved(*masses, EPS, hard(rho)), of_matrix(*masses, rho)
    v = centred(402, (2, N, 3))
    torch.testing.assert_close(found.product(v, 0), expected.apply(v), rtol=0, atol=1e-8)
    torch.testing.assert_close(found.product(v, 1), expected.apply_transpose(v), rtol=0, atol=1e-8)
    with pytest.raises(NotImplementedError, match="no dense plan"):
        found.plan()


@pytest.mark.parametrize("tol", [1e-2, 1e-6])
def test_certifies(masses, rho, tol):
    """The intervals hold the values that were found more accurately, and shrink with the error."""
    found = solved(*masses, EPS, hard(rho), tol)
    value = of_matrix(*masses, rho).value
    lower, upper = found.bounds()
    assert bool((lower <= value + 1e-9).all())
    assert bool((value <= upper + 1e-9).all())
    assert float((upper - lower).max()) < 20 * tol
    lower, upper = found.unregularised_bounds()
    assert bool((lower <= upper).all())
    dense = sinkdiv.solve_matrix(geometry().matrix(), *masses, eps=1e-3, rho=rho, tol=1e-6)
    assert bool((lower <= dense.unregularised_bounds[1]).all())
    assert bool((upper >= dense.unregularised_bounds[0]).all())


@pytest.mark.parametrize("value", ["value", "sharp"])
def test_differentiates_its_weights(masses, rho, value):
    """First derivatives by finite differences of fourth order, second ones by those of the first."""
    da, db = (centred(seed, (2, N)) / 50 for seed in (403, 404))
    a, b = (one.clone().requires_grad_() for one in masses)

    def at(t):
        with torch.no_grad():
            return float(getattr(solved(masses[0] + t * da, masses[1] + t * db, EPS, hard(rho)), value).sum())

    total = getattr(solved(a, b, EPS, hard(rho)), value).sum()
    grad_a, grad_b = torch.autograd.grad(total, (a, b), create_graph=True)
    along = (grad_a * da).sum() + (grad_b * db).sum()
    assert float(along.detach()) == pytest.approx(slope(at, 0.05), rel=1e-5, abs=1e-7)
    second = torch.autograd.grad(along, (a, b))

    def first_at(t):
        moved = [(one + t * way).requires_grad_() for one, way in zip(masses, (da, db), strict=True)]
        grads = torch.autograd.grad(getattr(solved(*moved, EPS, hard(rho)), value).sum(), moved)
        return float((grads[0] * da).sum() + (grads[1] * db).sum())

    measured = slope(first_at, 0.05)
    assert float((second[0] * da).sum() + (second[1] * db).sum()) == pytest.approx(measured, rel=1e-4, abs=1e-6)


def test_a_solver_that_needs_a_matrix_says_so(masses):
    """Capabilities are asked for: what a geometry has not is refused by name."""
    problem = Problem(geometry(), *weights_pair(), EPS, (torch.inf, torch.inf))
    with pytest.raises(NotImplementedError, match="'newton' needs"):
        solve_stored(problem, Limits(TOL, 500), "newton", None)


@pytest.mark.parametrize("solver", [Auto, Sinkhorn])
def test_one_line_in_the_table_leads_from_the_door_to_it(masses, rho, solver, monkeypatch):
    """Measures of a new kind are solved as those of others are; a solver that needs a matrix refuses."""
    monkeypatch.setitem(GEOMETRIES, OnRings, lambda measures, costs, cost, precision: geometry(len(measures.a)))
    given = {"eps": torch.tensor(EPS, dtype=torch.float64), "rho": rho, "tol": TOL}
    (found,) = solve_posed([OnRings(*masses)], settled("solve", MatrixOptions, {**given, "solver": solver()}))
    torch.testing.assert_close(found.value, of_matrix(*masses, rho).value, rtol=0, atol=1e-9)
    with pytest.raises(NotImplementedError, match="'newton' needs"):
        solve_posed([OnRings(*masses)], settled("solve", MatrixOptions, {**given, "solver": Newton()}))


def weights_pair():
    return weights(400, N, batch=2), weights(401, N, batch=2)


def test_the_self_problem_is_symmetric():
    """Both potentials are one, found in a few passes."""
    a = weights(405, N, batch=2)
    ring = geometry()
    problem = Problem(ring, a, a, EPS, (torch.inf, torch.inf))
    (solution,) = solve([problem], Limits(1e-6, 500), [None], [False])
    assert set(solution.status) == {Status.CONVERGED}
    assert torch.equal(solution.f, solution.g)
    assert int(solution.passes.max()) < 30
