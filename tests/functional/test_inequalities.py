"""Derivatives and shape in ε, and positivity: mathematics, oracles 9 and 10."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sinkdiv
from problems import CLOSE, array, cloud, costs, divergence_kl, slope, tight, weights

NAMES = st.sampled_from(["sqeuclidean", "euclidean"])
SEEDS = st.integers(0, 999)
EPS = st.floats(0.1, 5.0)


def problem(seed, dtype=torch.float64, n=8, m=7, mass=1.0):
    """Two clouds with weights of which one is zero."""
    a, b = weights(seed, n, dtype=dtype), weights(seed + 1, m - 1, mass=mass, dtype=dtype)
    return cloud(seed, n, dtype=dtype), cloud(seed + 1, m, dtype=dtype), a, torch.cat([b, b.new_zeros(1)])


# 9. In ε.


@given(seed=SEEDS, eps=EPS, name=NAMES, rho=st.sampled_from([None, 0.7]))
def test_slope_in_eps_is_the_divergence_of_the_plan_from_the_product(route, seed, eps, name, rho):
    """dOT_ε/dε = KL(P|abᵀ)."""
    x, y, a, b = problem(seed)
    options = {"cost": name, "rho": rho, **tight()}
    P = array(sinkdiv.solve(x, y, a, b, eps=eps, **options).plan())
    expected = divergence_kl(P, np.outer(array(a), array(b)))
    found = slope(lambda t: sinkdiv.transport_cost(x, y, a, b, eps=eps * (1 + t), **options)) / eps
    assert found == pytest.approx(expected, abs=1e-6)


@given(seed=SEEDS, name=NAMES)
def test_values_grow_with_eps_and_the_entropic_one_is_concave(dtype, route, seed, name):
    x, y, a, b = problem(seed, dtype)
    grid = np.linspace(0.15, 1.35, 7)
    solved = [sinkdiv.solve(x, y, a, b, eps=float(eps), cost=name, **tight(dtype)) for eps in grid]
    value, sharp = (np.array([float(getattr(t, kind)) for t in solved]) for kind in ("value", "sharp"))
    slack = 4 * CLOSE[dtype]
    assert (np.diff(value) >= -slack).all()
    assert (np.diff(sharp) >= -slack).all()
    assert (np.diff(value, 2) <= slack).all()
    # KL ≥ 0, and the product abᵀ is feasible with KL = 0.
    assert (sharp <= value + slack).all()
    assert (value <= array(a) @ costs(x, y, name) @ array(b) + slack).all()


# 10. Positivity and convexity.


@given(seed=SEEDS, eps=EPS, name=NAMES, gap=st.sampled_from([0.0, 1e-3, 0.5]), rho=st.sampled_from([None, 0.3, 5.0]))
def test_divergence_is_not_negative(dtype, route, seed, eps, name, gap, rho):
    """F19, Theorem 1; unbalanced: Séjourné et al. 2019. Masses differ where they may."""
    x, y, a, b = problem(seed, dtype, n=7, mass=1.0 if rho is None else 1.8)
    y = x + gap * (y - x)
    value = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=eps, rho=rho, cost=name, **tight(dtype))
    assert float(value) >= -2 * CLOSE[dtype]


@given(seed=SEEDS, eps=EPS, name=NAMES, rho=st.sampled_from([None, 0.3, (0.3, 2.0)]))
def test_divergence_of_a_measure_from_itself_is_zero(dtype, route, seed, eps, name, rho):
    """S(α,α) = 0, whether the second argument is the same tensor, a copy, or the same measure written otherwise."""
    x, _, a, _ = problem(seed, dtype)
    options = {"eps": eps, "rho": rho, "cost": name, **tight(dtype)}
    halves = torch.cat([a, a]) / 2
    for y, b in ((x, a), (x.clone(), a.clone()), (x.flip(0), a.flip(0)), (torch.cat([x, x]), halves)):
        assert float(sinkdiv.sinkhorn_divergence(x, y, a, b, **options)) == pytest.approx(0, abs=2 * CLOSE[dtype])


@pytest.mark.parametrize("name", ["sqeuclidean", "euclidean"])
@pytest.mark.parametrize("eps", [0.3, 1.0])
def test_divergence_tells_different_measures_apart(route, name, eps):
    """S = 0 only for equal measures: here they differ in one weight or in one point, with equal means."""
    x = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    a, b = torch.tensor([[0.25, 0.5, 0.25], [0.3, 0.4, 0.3]], dtype=torch.float64)
    wider = torch.tensor([[-1.2], [0.0], [1.2]], dtype=torch.float64)
    options = {"eps": eps, "cost": name, "tol": 1e-5}
    assert float(sinkdiv.sinkhorn_divergence(x, x, a, b, **options)) > 1e-4
    assert float(sinkdiv.sinkhorn_divergence(x, wider, a, a, **options)) > 1e-4


@given(seed=SEEDS, eps=EPS, name=NAMES, t=st.floats(0.1, 0.9), rho=st.sampled_from([None, 0.5]))
def test_divergence_is_convex_in_each_argument(route, seed, eps, name, t, rho):
    """S((1−t)α₀ + tα₁, β) ≤ (1−t)S(α₀,β) + tS(α₁,β) for mixtures of measures (F19, Theorem 1)."""
    x, y, a0, b = problem(seed)
    a1 = weights(seed + 7, 8)
    options = {"eps": eps, "cost": name, "rho": rho, **tight()}

    def value(a, first):
        pair = (x, y, a, b) if first else (y, x, b, a)
        return float(sinkdiv.sinkhorn_divergence(*pair, **options))

    for first in (True, False):
        chord = (1 - t) * value(a0, first) + t * value(a1, first)
        assert value((1 - t) * a0 + t * a1, first) <= chord + 1e-9


@given(seed=SEEDS, eps=EPS, name=NAMES)
def test_hausdorff_divergence_lies_between_zero_and_the_divergence(route, seed, eps, name):
    """0 ≤ H_ε ≤ S_ε with H_ε = ½<α−β, ∇F(α)−∇F(β)>, F(α) = −½OT_ε(α,α), ∇F(α) = −f_αα (F19, §2.3)."""
    x, y, a, b = problem(seed)
    d = sinkdiv.solve_divergence(x, y, a, b, eps=eps, cost=name, **tight())

    def potential_difference(points):
        return array(d.bb.potentials_at(points)) - array(d.aa.potentials_at(points))

    hausdorff = (array(a) @ potential_difference(x) - array(b) @ potential_difference(y)) / 2
    assert -1e-9 <= hausdorff <= float(d.value) + 1e-9
