"""Problems with a known answer: mathematics, oracles 1 to 5, and the optimality conditions of any problem."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment, linprog

import sinkdiv
from problems import CLOSE, EXPONENT, array, cloud, costs, primal, tight, weights

COSTS = ["sqeuclidean", "euclidean"]


def matrix_of(x, y, name):
    return torch.tensor(costs(x, y, name), dtype=x.dtype)


# 1. Two points; one point.


@given(c=st.floats(0.01, 4.0), eps=st.floats(0.1, 10.0), name=st.sampled_from(COSTS))
def test_two_points_that_stay_or_swap(dtype, route, c, eps, name):
    """a = b = (½,½), C = [[0,c],[c,0]]: OT_ε = −ε log((1+e^{−c/ε})/2) and <P,C> = c/(1+e^{c/ε})."""
    x = torch.tensor([[0.0], [c ** (1 / EXPONENT[name])]], dtype=dtype)
    scale = CLOSE[dtype] * (c + eps)
    for second in (x, x.clone()):
        t = sinkdiv.solve(x, second, eps=eps, cost=name, **tight(dtype))
        assert float(t.value) == pytest.approx(-eps * np.log((1 + np.exp(-c / eps)) / 2), abs=scale)
        assert float(t.sharp) == pytest.approx(c / (1 + np.exp(c / eps)), abs=scale)


@given(c=st.floats(0.01, 4.0), eps=st.floats(0.1, 10.0))
def test_two_points_given_as_a_matrix(dtype, c, eps):
    C = torch.tensor([[0, c], [c, 0]], dtype=dtype)
    t = sinkdiv.solve_matrix(C, eps=eps, **tight(dtype))
    scale = CLOSE[dtype] * (c + eps)
    assert float(t.value) == pytest.approx(-eps * np.log((1 + np.exp(-c / eps)) / 2), abs=scale)
    assert float(t.sharp) == pytest.approx(c / (1 + np.exp(c / eps)), abs=scale)


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("mass", [1.0, 0.3, 2.5])
def test_one_point_on_each_side_costs_its_distance(dtype, route, name, mass):
    """The only plan is P = m: <P,C> = mC and OT_ε = mC + ε KL(m|m²) = mC + ε(m² − m − m log m)."""
    x, y = torch.tensor([[1.0, -2.0]], dtype=dtype), torch.tensor([[4.0, 2.0]], dtype=dtype)
    C, eps = 5.0 ** EXPONENT[name], 0.7
    w = torch.tensor([mass], dtype=dtype)
    t = sinkdiv.solve(x, y, w, w.clone(), eps=eps, cost=name, **tight(dtype))
    assert float(t.sharp) == pytest.approx(mass * C, abs=CLOSE[dtype] * C)
    expected = mass * C + eps * (mass**2 - mass - mass * np.log(mass))
    assert float(t.value) == pytest.approx(expected, abs=CLOSE[dtype] * C)


# The optimality conditions, which have one solution only.


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("mass", [1.0, 1.7])
def test_plan_is_optimal_and_the_value_is_its_primal_value(route, name, mass):
    """log(P/abᵀ) + C/ε = f⊕g and P1 = a, Pᵀ1 = b hold for the optimal plan and no other (strict convexity)."""
    x, y, a, b, eps = cloud(0, 13), cloud(1, 9), weights(0, 13, mass=mass), weights(1, 9, mass=mass), 0.1
    C = costs(x, y, name)
    for t in (
        sinkdiv.solve(x, y, a, b, eps=eps, cost=name, **tight()),
        sinkdiv.solve_matrix(torch.tensor(C), a, b, eps=eps, **tight()),
    ):
        P = array(t.plan())
        np.testing.assert_allclose(P.sum(1), array(a), atol=1e-9)
        np.testing.assert_allclose(P.sum(0), array(b), atol=1e-9)
        additive = eps * np.log(P / np.outer(array(a), array(b))) + C
        np.testing.assert_allclose(additive, array(t.f)[:, None] + array(t.g)[None, :], atol=1e-9)
        assert float(t.value) == pytest.approx(primal(P, C, array(a), array(b), eps), abs=1e-9)
        assert float(t.sharp) == pytest.approx((P * C).sum(), abs=1e-9)


@pytest.mark.parametrize("name", COSTS)
def test_the_three_routes_give_one_answer(dtype, route, name):
    """A kept cost matrix, a streamed one and an explicit one are the same problem."""
    x, y, a, b = (
        cloud(2, 17, 3, dtype=dtype),
        cloud(3, 11, 3, dtype=dtype),
        weights(2, 17, dtype=dtype),
        weights(3, 11, dtype=dtype),
    )
    points = sinkdiv.solve(x, y, a, b, eps=0.1, cost=name, **tight(dtype))
    matrix = sinkdiv.solve_matrix(matrix_of(x, y, name), a, b, eps=0.1, **tight(dtype))
    torch.testing.assert_close(points.value, matrix.value, rtol=0, atol=CLOSE[dtype])
    torch.testing.assert_close(points.sharp, matrix.sharp, rtol=0, atol=CLOSE[dtype])
    torch.testing.assert_close(points.plan(), matrix.plan(), rtol=0, atol=CLOSE[dtype])


# 2. Translations.


@given(
    eps=st.floats(0.05, 20.0),
    d=st.sampled_from([1, 3, 12]),
    seed=st.integers(0, 99),
    length=st.floats(0.1, 3.0),
)
def test_translation_by_tau_costs_its_square_and_pushes_against_it(dtype, route, eps, d, seed, length):
    """Squared cost: S_ε(α, α+τ) = |τ|² for every ε and α, with gradient −2a_iτ; so does the debiased sharp value."""
    x, a = cloud(seed, 9, d, dtype=dtype).requires_grad_(), weights(seed, 9, dtype=dtype)
    tau = torch.full((d,), length / d**0.5, dtype=dtype)
    y = (x + tau).detach()
    divergence = sinkdiv.solve_divergence(x, y, a, a.clone(), eps=eps, **tight(dtype))
    scale = CLOSE[dtype] * (1 + length**2 + d + eps)
    assert divergence.value.item() == pytest.approx(length**2, abs=scale)
    assert divergence.sharp.item() == pytest.approx(length**2, abs=10 * scale)
    (grad,) = torch.autograd.grad(divergence.value, x)
    torch.testing.assert_close(grad, -2 * a[:, None] * tau, rtol=0, atol=10 * scale)


@pytest.mark.parametrize("eps", [0.1, 2.0])
def test_means_split_off_and_the_gradient_sums_to_twice_their_difference(dtype, route, eps):
    """Squared cost: S_ε(α,β) = |m_α−m_β|² + S_ε(centred α, centred β) and Σ_i ∂S_ε/∂x_i = 2(m_α−m_β)."""
    x, y = cloud(4, 12, dtype=dtype).requires_grad_(), cloud(5, 10, dtype=dtype) + 1.5
    a, b = weights(4, 12, dtype=dtype), weights(5, 10, dtype=dtype)
    mean_x, mean_y = a @ x.detach(), b @ y
    value = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=eps, **tight(dtype))
    rest = sinkdiv.sinkhorn_divergence(x.detach() - mean_x, y - mean_y, a, b, eps=eps, **tight(dtype))
    torch.testing.assert_close(value, (mean_x - mean_y).square().sum() + rest, rtol=0, atol=5 * CLOSE[dtype])
    (grad,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(grad.sum(0), 2 * (mean_x - mean_y), rtol=0, atol=20 * CLOSE[dtype])


# 3. Gaussians.


def gaussian(mean, covariance, step=0.5, reach=6.5):
    """A grid in whitened coordinates whose weighted sums are Gaussian integrals to 1e-9 (trapezoidal rule)."""
    axis = np.arange(-reach, reach + step / 2, step)
    z = np.stack(np.meshgrid(*[axis] * len(mean), indexing="ij"), -1).reshape(-1, len(mean))
    density = np.exp(-(z**2).sum(1) / 2)
    keep = density > 1e-10
    z, density = z[keep], density[keep]
    points = np.asarray(mean) + z @ sqrtm(np.asarray(covariance)).real
    return torch.tensor(points), torch.tensor(density / density.sum())


def gaussian_cost(mean_a, mean_b, A, B, sigma):
    """Janati et al. 2020: OT_ε between Gaussians for the cost |x−y|² at ε = 2σ²."""
    d, root = len(A), sqrtm(A).real
    K = sqrtm(4 * root @ B @ root + sigma**4 * np.eye(d)).real
    delta = np.sum((np.asarray(mean_a) - np.asarray(mean_b)) ** 2)
    return (
        delta
        + np.trace(A)
        + np.trace(B)
        - np.trace(K)
        + d * sigma**2 * (1 - np.log(2 * sigma**2))
        + sigma**2 * np.linalg.slogdet(K + sigma**2 * np.eye(d))[1]
    )


@pytest.mark.parametrize("sigma", [0.7, 1.5])
def test_gaussians_in_one_dimension(sigma):
    """Janati et al. 2020; in one dimension also <P,C> = Δm² + v₁ + v₂ − √(4v₁v₂+σ⁴) + σ²."""
    v1, v2 = 1.3, 0.6
    (x, a), (y, b) = gaussian([0.2], [[v1]], step=0.2), gaussian([1.0], [[v2]], step=0.2)
    t = sinkdiv.solve(x, y, a, b, blur=sigma, **tight())
    expected = gaussian_cost([0.2], [1.0], np.array([[v1]]), np.array([[v2]]), sigma)
    assert float(t.value) == pytest.approx(expected, abs=1e-7)
    sharp = 0.8**2 + v1 + v2 - np.sqrt(4 * v1 * v2 + sigma**4) + sigma**2
    assert float(t.sharp) == pytest.approx(sharp, abs=1e-7)


def test_gaussians_in_two_dimensions_with_covariances_that_do_not_commute():
    A, B = np.array([[1.0, 0.5], [0.5, 0.8]]), np.array([[0.7, -0.2], [-0.2, 1.2]])
    (x, a), (y, b) = gaussian([0.0, 0.0], A), gaussian([0.5, -1.0], B)
    t = sinkdiv.solve(x, y, a, b, blur=1.0, **tight())
    assert float(t.value) == pytest.approx(gaussian_cost([0, 0], [0.5, -1], A, B, 1.0), abs=1e-7)


# 4. Large ε.


def expansion(C, a, b):
    """<C,abᵀ> and V = Σ a_i b_j (doubly centred C)²."""
    product = np.outer(a, b)
    doubly_centred = C - C @ b[:, None] - (a[None, :] @ C) + a @ C @ b
    return float((product * C).sum()), float((product * doubly_centred**2).sum())


@pytest.mark.parametrize("name", COSTS)
def test_values_expand_in_one_over_eps(route, name):
    """OT_ε = <C,abᵀ> − V/2ε + O(ε⁻²) and <P,C> = <C,abᵀ> − V/ε + O(ε⁻²)."""
    x, y, a, b = cloud(6, 10), cloud(7, 12) + 1, weights(6, 10), weights(7, 12)
    C = costs(x, y, name)
    mean, V = expansion(C, array(a), array(b))
    for eps in (100.0, 1000.0):
        t = sinkdiv.solve(x, y, a, b, eps=eps, cost=name, **tight())
        third = np.ptp(C) ** 3 / eps**2
        assert float(t.value) == pytest.approx(mean - V / (2 * eps), abs=third)
        assert float(t.sharp) == pytest.approx(mean - V / eps, abs=third)


@pytest.mark.parametrize("name", COSTS)
def test_divergence_becomes_an_mmd_as_eps_grows(route, name):
    """S_ε → ½|α−β|² in the kernel −C: half the energy distance, or |Δmean|² for the squared cost (F19, Theorem 1)."""
    x, y, a, b, eps = cloud(8, 10), cloud(9, 12) + 0.3, weights(8, 10), weights(9, 12), 1e4
    u, v = array(a), array(b)
    pairs = [(costs(x, y, name), u, v, 1.0), (costs(x, x, name), u, u, -0.5), (costs(y, y, name), v, v, -0.5)]
    terms = [(factor, *expansion(C, p, q)) for C, p, q, factor in pairs]
    limit = sum(factor * mean for factor, mean, _ in terms)
    slack = sum(abs(factor) * V for factor, _, V in terms) / eps
    value = float(sinkdiv.sinkhorn_divergence(x, y, a, b, eps=eps, cost=name, **tight()))
    assert value == pytest.approx(limit, abs=slack)
    assert slack < 1e-3 * limit
    if name == "sqeuclidean":
        assert limit == pytest.approx(float((a @ x - b @ y).square().sum()), abs=1e-12)
    else:
        assert limit == pytest.approx(float(sinkdiv.mmd(x, y, a, b, kernel="energy")), abs=1e-12)


# 5. Small ε.


def assert_between_exact_transport_and_its_entropy(t, exact, eps, a, b):
    """0 ≤ <P,C> − OT_0 ≤ OT_ε − OT_0 ≤ ε min(H(a), H(b)), up to the marginal error of the plan."""
    entropy = min(-(w * w.log()).sum().item() for w in (a, b))
    value, sharp, slack = float(t.value), float(t.sharp), 1e-6
    assert exact - slack <= sharp <= value + slack
    assert value <= exact + eps * entropy + slack


@pytest.mark.parametrize("name", COSTS)
def test_uniform_clouds_approach_the_optimal_assignment(route, name):
    x, y, n = cloud(10, 14), cloud(11, 14), 14
    C = costs(x, y, name)
    exact = C[linear_sum_assignment(C)].sum() / n
    w = torch.full((n,), 1 / n, dtype=torch.float64)
    for eps in (0.1, 0.02):
        t = sinkdiv.solve(x, y, eps=eps, cost=name, tol=1e-7, solver=sinkdiv.Auto(max_passes=100_000))
        assert_between_exact_transport_and_its_entropy(t, exact, eps, w, w)


@pytest.mark.parametrize("name", COSTS)
def test_weighted_clouds_approach_the_linear_programme(route, name):
    n, m = 8, 11
    x, y, a, b = cloud(12, n), cloud(13, m), weights(12, n), weights(13, m)
    C = costs(x, y, name)
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    result = linprog(C.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([array(a), array(b)]))
    for eps in (0.1, 0.02):
        t = sinkdiv.solve(x, y, a, b, eps=eps, cost=name, tol=1e-7, solver=sinkdiv.Auto(max_passes=100_000))
        assert_between_exact_transport_and_its_entropy(t, result.fun, eps, a, b)


@pytest.mark.parametrize("name", COSTS)
def test_points_on_a_line_approach_the_sorted_coupling(route, name):
    x, y = cloud(14, 15, 1), cloud(15, 15, 1) + 0.5
    exact = float((x.sort(0).values - y.sort(0).values).abs().pow(EXPONENT[name]).mean())
    w = torch.full((15,), 1 / 15, dtype=torch.float64)
    t = sinkdiv.solve(x, y, eps=0.02, cost=name, tol=1e-7, solver=sinkdiv.Auto(max_passes=100_000))
    assert_between_exact_transport_and_its_entropy(t, exact, 0.02, w, w)


# 8. Unbalanced.


@given(
    c=st.floats(0.0, 4.0),
    masses=st.tuples(st.floats(0.05, 5.0), st.floats(0.05, 5.0)),
    eps=st.floats(0.05, 3.0),
    rho=st.floats(0.05, 10.0),
    name=st.sampled_from(COSTS),
)
def test_unbalanced_diracs(dtype, route, c, masses, eps, rho, name):
    """Mass moved: (ab)^{(ε+ρ)/(ε+2ρ)} e^{−c/(ε+2ρ)}; at the optimum P1 = a e^{−f/ρ} and Pᵀ1 = b e^{−g/ρ}."""
    x = torch.tensor([[0.0]], dtype=dtype)
    y = torch.tensor([[c ** (1 / EXPONENT[name])]], dtype=dtype)
    a, b = (torch.tensor([mass], dtype=dtype) for mass in masses)
    t = sinkdiv.solve(x, y, a, b, eps=eps, rho=rho, cost=name, **tight(dtype))
    ma, mb = masses
    moved = (ma * mb) ** ((eps + rho) / (eps + 2 * rho)) * np.exp(-c / (eps + 2 * rho))
    scale = 10 * CLOSE[dtype] * moved
    assert float(t.plan()) == pytest.approx(moved, abs=scale)
    rows, columns = t.marginals()
    assert float(rows) == pytest.approx(moved, abs=scale)
    assert float(columns) == pytest.approx(moved, abs=scale)
    assert float(rows) == pytest.approx(ma * np.exp(-float(t.f) / rho), abs=scale)
    assert float(columns) == pytest.approx(mb * np.exp(-float(t.g) / rho), abs=scale)
    P, C = np.array([[moved]]), np.array([[c]])
    expected = primal(P, C, np.array([ma]), np.array([mb]), eps, (rho, rho))
    assert float(t.value) == pytest.approx(expected, abs=10 * CLOSE[dtype] * (1 + ma + mb) * (1 + eps + rho + c))


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("rho", [(0.5, 0.5), (0.2, 3.0)])
def test_unbalanced_plan_is_optimal_and_the_value_is_its_primal_value(route, name, rho):
    """ε log(P/abᵀ) + C = f⊕g with P1 = a e^{−f/ρ₁}, Pᵀ1 = b e^{−g/ρ₂} has one solution only (strict convexity)."""
    x, y, a, b, eps = cloud(16, 11), cloud(17, 9), weights(16, 11, mass=0.8), weights(17, 9, mass=2.0), 0.1
    C = costs(x, y, name)
    for t in (
        sinkdiv.solve(x, y, a, b, eps=eps, rho=rho, cost=name, **tight()),
        sinkdiv.solve_matrix(torch.tensor(C), a, b, eps=eps, rho=rho, **tight()),
    ):
        P = array(t.plan())
        f, g = -rho[0] * np.log(P.sum(1) / array(a)), -rho[1] * np.log(P.sum(0) / array(b))
        np.testing.assert_allclose(array(t.f), f, atol=1e-8)
        np.testing.assert_allclose(array(t.g), g, atol=1e-8)
        additive = eps * np.log(P / np.outer(array(a), array(b))) + C
        np.testing.assert_allclose(additive, f[:, None] + g[None, :], atol=1e-8)
        assert float(t.value) == pytest.approx(primal(P, C, array(a), array(b), eps, rho), abs=1e-9)
        assert float(t.sharp) == pytest.approx((P * C).sum(), abs=1e-9)


def test_reach_is_a_length_like_blur():
    """ρ = p·reachᵖ and ε = p·blurᵖ for the cost |x−y|ᵖ (mathematics, §1.4 and §1.5)."""
    x, y, a, b = cloud(18, 7), cloud(19, 8), weights(18, 7, mass=0.7), weights(19, 8)
    for name, p in EXPONENT.items():
        lengths = sinkdiv.transport_cost(x, y, a, b, blur=0.4, reach=(0.5, 0.9), cost=name, **tight())
        units = sinkdiv.transport_cost(x, y, a, b, eps=p * 0.4**p, rho=(p * 0.5**p, p * 0.9**p), cost=name, **tight())
        torch.testing.assert_close(lengths, units, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", COSTS)
def test_soft_marginals_become_hard_as_rho_grows(name):
    """ρ → ∞ reproduces the balanced values where the masses are equal, with an error of order 1/ρ.

    A marginal error of 1e-5 leaves one of second order in the values.
    """
    x, y, a, b = cloud(20, 9), cloud(21, 8) + 0.2, weights(20, 9), weights(21, 8)
    options = {"eps": 0.2, "cost": name, "tol": 1e-5, "solver": sinkdiv.Auto(max_passes=50_000)}
    for function in (sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence):
        balanced = float(function(x, y, a, b, **options))
        for rho in (20.0, 200.0):
            soft = float(function(x, y, a, b, rho=rho, **options))
            assert soft == pytest.approx(balanced, abs=1 / rho)


@pytest.mark.parametrize("name", COSTS)
def test_unbalanced_divergence_from_its_potentials(route, name):
    """S_ε = (ρ+ε/2)[<a, e^{−f_aa/ρ} − e^{−f_ab/ρ}> + <b, e^{−g_bb/ρ} − e^{−g_ab/ρ}>] for any masses.

    Source: mathematics, §1.5.
    """
    x, y, a, b = cloud(22, 9), cloud(23, 8) + 0.4, weights(22, 9, mass=0.6), weights(23, 8, mass=1.9)
    eps, rho = 0.15, 0.8
    d = sinkdiv.solve_divergence(x, y, a, b, eps=eps, rho=rho, cost=name, **tight())
    gain_a = array(a) @ (np.exp(-array(d.aa.f) / rho) - np.exp(-array(d.ab.f) / rho))
    gain_b = array(b) @ (np.exp(-array(d.bb.g) / rho) - np.exp(-array(d.ab.g) / rho))
    assert float(d.value) == pytest.approx((rho + eps / 2) * (gain_a + gain_b), abs=1e-9)
    C = [primal(array(t.plan()), costs(p, q, name), array(u), array(v), eps, (rho, rho)) for t, p, q, u, v in
         ((d.ab, x, y, a, b), (d.aa, x, x, a, a), (d.bb, y, y, b, b))]  # fmt: skip
    mass_term = eps / 2 * (0.6 - 1.9) ** 2
    assert float(d.value) == pytest.approx(C[0] - (C[1] + C[2]) / 2 + mass_term, abs=1e-9)
