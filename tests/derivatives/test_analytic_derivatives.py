"""Derivatives against closed forms (mathematics, §2 and oracles 1 to 8), and dense linear algebra in NumPy (Q23 §3)."""

import numpy as np
import pytest
import torch

import sinkdiv
from problems import SOLVERS, array, assert_slope, centred, cloud, direction, divergence_kl, slope, tight, weights
from sinkdiv.geometry import MatrixGeometry
from sinkdiv.solvers import Problem
from sinkdiv.solvers.hessian import SemiDualHessian

RHOS = {"balanced": None, "unbalanced": 0.5, "unbalanced pair": (0.3, 2.0)}


def scalar(value):
    return torch.tensor(float(value), dtype=torch.float64, requires_grad=True)


def derivatives(value, *inputs):
    """The first derivatives and the Hessian's rows, as numbers."""
    first = torch.autograd.grad(value, inputs, create_graph=True)
    second = [torch.autograd.grad(one, inputs, retain_graph=True, allow_unused=True) for one in first]
    return [one.item() for one in first], [[0.0 if v is None else v.item() for v in row] for row in second]


@pytest.mark.parametrize("c", [0.01, 0.7, 3.0])
@pytest.mark.parametrize("eps", [0.1, 1.0])
@pytest.mark.parametrize("how", ["matrix", "points"])
def test_two_points(c, eps, how):
    """C = [[0,c],[c,0]]: sharp = c·s with s = 1/(1+e^{c/ε}), OT_ε = −ε log((1+e^{−c/ε})/2); derivatives (§5, 1)."""
    leaf = scalar(c)
    if how == "matrix":
        C = leaf * torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        t = sinkdiv.solve_matrix(C, eps=eps, **tight())
    else:
        x = torch.stack([torch.zeros_like(leaf), leaf])[:, None]
        t = sinkdiv.solve(x, x.clone(), eps=eps, cost="euclidean", **tight())
    s = 1 / (1 + np.exp(c / eps))
    first, second = derivatives(t.sharp, leaf)
    bend = s * (1 - s) / eps
    assert t.sharp.item() == pytest.approx(c * s, abs=1e-10)
    assert first[0] == pytest.approx(s - c * bend, abs=1e-9)
    first_entropic, second_entropic = derivatives(t.value, leaf)
    assert first_entropic[0] == pytest.approx(s, abs=1e-9)
    if how == "matrix":  # where points coincide, |x−y| has no second derivative
        assert second[0][0] == pytest.approx(-2 * bend + c / eps * bend * (1 - 2 * s), abs=1e-8)
        assert second_entropic[0][0] == pytest.approx(-bend, abs=1e-8)


@pytest.mark.parametrize("rho", [(0.5, 0.5), (0.3, 2.0), (50.0, 50.0)])
@pytest.mark.parametrize(("a", "b", "c"), [(1.0, 1.0, 0.4), (0.3, 2.0, 1.5)])
def test_unbalanced_diracs(rho, a, b, c):
    """One point on each side: the mass m and the values in closed form, and all their derivatives (§5, 8).

    Stationarity of c m + ε KL(m|ab) + ρ₁KL(m|a) + ρ₂KL(m|b) gives
    log m = ((ε+ρ₁) log a + (ε+ρ₂) log b − c)/(ε+ρ₁+ρ₂), and with it the value ε(ab−m) + ρ₁(a−m) + ρ₂(b−m).
    """
    eps = 0.2
    inputs = [scalar(one) for one in (a, b, c)]
    leaf_a, leaf_b, leaf_c = inputs
    t = sinkdiv.solve_matrix(leaf_c.view(1, 1), leaf_a.view(1), leaf_b.view(1), eps=eps, rho=rho, **tight())
    logs = (eps + rho[0]) * leaf_a.log() + (eps + rho[1]) * leaf_b.log() - leaf_c
    mass = (logs / (eps + sum(rho))).exp()
    value = eps * (leaf_a * leaf_b - mass) + rho[0] * (leaf_a - mass) + rho[1] * (leaf_b - mass)
    for found, expected in (
        (t.value, value),
        (t.sharp, leaf_c * mass),
        (t.marginals()[0].sum(), mass),
        (t.marginals()[1].sum(), mass),
        (t.f.sum(), -rho[0] * (mass / leaf_a).log()),
    ):
        assert found.item() == pytest.approx(expected.item(), abs=1e-8)
        for have, want in zip(derivatives(found, *inputs), derivatives(expected, *inputs), strict=True):
            np.testing.assert_allclose(have, want, rtol=1e-7, atol=1e-7)
    if rho[0] == rho[1]:
        closed = (a * b) ** ((eps + rho[0]) / (eps + 2 * rho[0])) * np.exp(-c / (eps + 2 * rho[0]))
        assert mass.item() == pytest.approx(closed, rel=1e-12)


@pytest.mark.parametrize("value", ["entropic", "sharp"])
@pytest.mark.parametrize("eps", [0.05, 1.0])
def test_divergence_of_a_translated_copy(route, value, eps):
    """S(α, α+τ) = |τ|² for every ε, the sharp one too: gradient −2a_i τ; in τ itself 2τ, Hessian 2·1 (§5, 2)."""
    x, a = cloud(750, 8, 3), weights(750, 8)
    tau = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    x.requires_grad_()
    loss = sinkdiv.sinkhorn_divergence(x, x.detach() + tau, a, a.clone(), eps=eps, value=value, **tight())
    assert loss.item() == pytest.approx(0.38, abs=1e-9)
    grad_x, grad_tau = torch.autograd.grad(loss, (x, tau), create_graph=True)
    torch.testing.assert_close(grad_x, -2 * a[:, None] * tau, rtol=0, atol=1e-9)
    torch.testing.assert_close(grad_tau, 2 * tau, rtol=0, atol=1e-9)
    for i in range(3):
        (row,) = torch.autograd.grad(grad_tau[i], tau, retain_graph=True)
        torch.testing.assert_close(row, 2 * torch.eye(3, dtype=torch.float64)[i], rtol=0, atol=1e-8)


@pytest.mark.parametrize("value", ["entropic", "sharp"])
def test_sum_of_forces_is_the_difference_of_means(value):
    """Squared cost: Σ_i ∂S/∂x_i = 2(m_α − m_β) (§5, 2)."""
    x, y, a, b = cloud(751, 8), cloud(752, 6) + 0.5, weights(751, 8), weights(752, 6)
    x.requires_grad_()
    loss = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.1, value=value, **tight())
    (grad,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(grad.sum(0), 2 * (a @ x - b @ y).detach(), rtol=0, atol=1e-9)


# The sharp value of a matrix (§5, 7).


def matrix_problem():
    return cloud(753, 6, 5), weights(753, 6), weights(754, 5)


def sharp_gradient(C, a, b, eps=0.1, **options):
    leaf = C.clone().requires_grad_()
    t = sinkdiv.solve_matrix(leaf, a, b, eps=eps, **{**tight(), **options})
    return torch.autograd.grad(t.sharp, leaf)[0]


def test_gradient_of_the_sharp_value_has_the_weights_as_sums():
    """Adding a constant to a row of C adds as much, times its weight; some entries are negative all the same."""
    C, a, b = matrix_problem()
    grad = sharp_gradient(C, a, b)
    torch.testing.assert_close(grad.sum(1), a, rtol=0, atol=1e-10)
    torch.testing.assert_close(grad.sum(0), b, rtol=0, atol=1e-10)
    assert float(grad.min()) < -1e-3


def test_gradient_of_the_sharp_value_does_not_depend_on_the_gauge():
    """C and C + p⊕q have the same plan, and values that differ by <a,p> + <b,q>."""
    C, a, b = matrix_problem()
    shifted = C + 3 * direction(755, (6, 1)) + 3 * direction(756, (1, 5))
    torch.testing.assert_close(sharp_gradient(shifted, a, b), sharp_gradient(C, a, b), rtol=0, atol=1e-9)


@pytest.mark.parametrize("rho", [None, 0.5])
def test_sharp_value_is_homogeneous(rho):
    """S(sC, sε, sρ) = s S(C, ε, ρ), so that <∇S, C> + (ε∂_ε + ρ∂_ρ) S = S."""
    C, a, b = matrix_problem()

    def sharp(t):
        strength = None if rho is None else rho * (1 + t)
        return float(sinkdiv.solve_matrix(C, a, b, eps=0.1 * (1 + t), rho=strength, **tight()).sharp)

    along_costs = float((sharp_gradient(C, a, b, rho=rho) * C).sum())
    assert along_costs + slope(sharp) == pytest.approx(sharp(0.0), abs=1e-8)


@pytest.mark.parametrize("method", ["auto", "lbfgs", "newton", "reference kernels"])
@pytest.mark.parametrize("rho", RHOS.values(), ids=RHOS)
def test_sharp_gradient_is_that_of_the_dense_linear_system(request, rho, method):
    """Q23 §3 in NumPy, from the plan alone: [k₁ diag r, P; Pᵀ, k₂ diag c][s_u; s_v] = [μ; ν], by least squares."""
    if method == "reference kernels":
        request.getfixturevalue("without_native")
        method = "auto"
    C, a, b = matrix_problem()
    eps = 0.1
    leaves = [tensor.clone().requires_grad_() for tensor in (C, a, b)]
    t = sinkdiv.solve_matrix(*leaves, eps=eps, rho=rho, **tight(solver=SOLVERS[method]))
    found = [array(grad) for grad in torch.autograd.grad(t.sharp, leaves)]
    P, C = array(t.plan()), array(C)
    r, c = P.sum(1), P.sum(0)
    strengths = (np.inf, np.inf) if rho is None else rho if isinstance(rho, tuple) else (rho, rho)
    k = [1 + eps / one for one in strengths]
    system = np.block([[k[0] * np.diag(r), P], [P.T, k[1] * np.diag(c)]])
    s = np.linalg.lstsq(system, np.concatenate([(P * C).sum(1), (P * C).sum(0)]), rcond=1e-12)[0]
    s_u, s_v = s[:6], s[6:]
    np.testing.assert_allclose(found[0], P * (1 + (s_u[:, None] + s_v[None] - C) / eps), rtol=0, atol=1e-9)
    expected = [k[0] * r / array(a) * s_u, k[1] * c / array(b) * s_v]
    if rho is None:  # only differences count
        found[1:], expected = ([w - w.mean() for w in pair] for pair in (found[1:], expected))
    for have, want in zip(found[1:], expected, strict=True):
        np.testing.assert_allclose(have, want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rho", RHOS.values(), ids=RHOS)
def test_plan_is_differentiated_as_the_dense_linear_system_says(rho):
    """For any loss <G, P>: dL/dC = P∘(s_u⊕s_v − G)/ε, with μ = (P∘G)1 and ν = (P∘G)ᵀ1 (§2)."""
    C, a, b = matrix_problem()
    eps, G = 0.1, array(direction(757, C.shape))
    leaf = C.clone().requires_grad_()
    t = sinkdiv.solve_matrix(leaf, a, b, eps=eps, rho=rho, **tight())
    plan = t.plan()
    (found,) = torch.autograd.grad((plan * torch.tensor(G)).sum(), leaf)
    P = array(plan)
    strengths = (np.inf, np.inf) if rho is None else rho if isinstance(rho, tuple) else (rho, rho)
    k = [1 + eps / one for one in strengths]
    system = np.block([[k[0] * np.diag(P.sum(1)), P], [P.T, k[1] * np.diag(P.sum(0))]])
    s = np.linalg.lstsq(system, np.concatenate([(P * G).sum(1), (P * G).sum(0)]), rcond=1e-12)[0]
    np.testing.assert_allclose(array(found), P * (s[:6, None] + s[None, 6:] - G) / eps, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rho", RHOS.values(), ids=RHOS)
@pytest.mark.parametrize("quantity", ["value", "sharp", "plan"])
def test_forbidden_pairs(rho, quantity):
    """Costs of +∞ stay out of every derivative: 0 there, and elsewhere right by differences, in both orders."""
    C, a, b = matrix_problem()
    forbidden = torch.zeros_like(C, dtype=torch.bool)
    forbidden[0, 1] = forbidden[3, 4] = forbidden[5, 0] = True
    C = C.masked_fill(forbidden, torch.inf)
    step, other = (direction(seed, C.shape).masked_fill(forbidden, 0.0) for seed in (770, 771))

    def loss(C):
        t = sinkdiv.solve_matrix(C, a, b, eps=0.2, rho=rho, tol=1e-11, solver=sinkdiv.Auto(max_passes=50_000))
        return t.plan().square().sum() if quantity == "plan" else getattr(t, quantity)

    def gradient(C, create_graph=False):
        leaf = C.clone().requires_grad_()
        return leaf, torch.autograd.grad(loss(leaf), leaf, create_graph=create_graph)[0]

    leaf, grad = gradient(C, create_graph=True)
    (product,) = torch.autograd.grad((grad * step).sum(), leaf)
    for one in (gradient(C)[1], grad.detach(), product):
        assert torch.isfinite(one).all()
        assert (one[forbidden] == 0).all()
    assert (grad * step).sum().item() == pytest.approx(slope(lambda t: loss(C + t * step)), abs=1e-7)
    expected = slope(lambda t: (gradient(C + t * other)[1] * step).sum())
    assert (product * other).sum().item() == pytest.approx(expected, abs=1e-6)


def test_spectrum_of_the_semidual_hessian():
    """D = diag c − Pᵀ diag(1/r) P: eigenvalue 0 once; without column m, min_j Σ_i P_ij P_im/a_i ≤ λ ≤ max b (§5, 7)."""
    C, a, b = matrix_problem()
    t = sinkdiv.solve_matrix(C, a, b, eps=0.1, **tight())
    P = array(t.plan())
    D = np.diag(P.sum(0)) - P.T @ np.diag(1 / P.sum(1)) @ P
    eigenvalues = np.linalg.eigvalsh(D)
    assert eigenvalues[0] == pytest.approx(0, abs=1e-12)
    assert eigenvalues[1] > 1e-4
    deleted = np.linalg.eigvalsh(D[:-1, :-1])
    assert (P[:, :-1] * P[:, -1:] / array(a)[:, None]).sum(0).min() - 1e-12 <= deleted[0]
    assert deleted[-1] <= float(b.max()) + 1e-12
    problem = Problem(MatrixGeometry(C[None]), a[None], b[None], (0.1,), (torch.inf, torch.inf))
    g = t.g[None]
    hessian = SemiDualHessian(problem, g, problem.raw_potential(g, problem.eps_column(), 0))
    product = hessian.product(torch.eye(5, dtype=torch.float64)[None])[0]
    np.testing.assert_allclose(array(product), D, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rho", RHOS.values(), ids=RHOS)
def test_derivative_in_the_regularisation_is_the_relative_entropy(rho):
    """∂OT_ε/∂ε = KL(P|abᵀ) (§5, 9), by the difference of solves."""
    C, a, b = matrix_problem()
    expected = slope(lambda t: sinkdiv.solve_matrix(C, a, b, eps=0.2 + t, rho=rho, **tight()).value)
    P = array(sinkdiv.solve_matrix(C, a, b, eps=0.2, rho=rho, **tight()).plan())
    assert divergence_kl(P, np.outer(array(a), array(b))) == pytest.approx(expected, abs=1e-8)


# Limits.


@pytest.mark.parametrize("function", [sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence])
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_large_rho_gives_the_balanced_derivatives(function, cost):
    """Where masses are equal, within 1/ρ: gradients in points, and in weights up to constants, and Hessians."""
    tensors = cloud(758, 6), cloud(759, 5), weights(758, 6), weights(759, 5)
    results = []
    for rho in (None, 1e6):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        options = {
            "eps": 0.2,
            "rho": rho,
            "cost": cost,
            "value": "sharp",
            "tol": 1e-11,
            "solver": sinkdiv.Auto(max_passes=50_000),
        }
        first = torch.autograd.grad(function(*leaves, **options), leaves, create_graph=True)
        second = torch.autograd.grad((first[0] * direction(760, first[0].shape)).sum(), leaves)
        results.append([w - w.mean() if w.ndim == 1 else w for w in (*first, *second)])
    for soft, hard in zip(*results, strict=True):
        torch.testing.assert_close(soft, hard, rtol=0, atol=2e-5)


@pytest.mark.parametrize("value", ["entropic", "sharp"])
def test_large_eps_gives_the_gradient_of_the_energy_distance(value):
    """S_ε → ½|α−β|² in the kernel −C, up to V/ε (§5, 4)."""
    x, y, a, b = cloud(761, 6), cloud(762, 5) + 0.3, weights(761, 6), weights(762, 5)
    x.requires_grad_()
    eps = 1e4
    options = {"eps": eps, "cost": "euclidean", "value": value, "tol": 1e-12}
    (found,) = torch.autograd.grad(sinkdiv.sinkhorn_divergence(x, y, a, b, **options), x)
    (expected,) = torch.autograd.grad(sinkdiv.mmd(x, y, a, b), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1 / eps)


def test_small_eps_gives_the_gradient_of_sorted_transport():
    """1-D, equal weights: OT_0 pairs sorted points, and the gradient is 2(x_(i) − y_(i))/n up to e^{−gap/ε}."""
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
    y = torch.tensor([[3.3], [0.2], [1.1], [2.4]], dtype=torch.float64)
    x.requires_grad_()
    loss = sinkdiv.transport_cost(x, y, eps=0.02, value="sharp", **tight())
    (grad,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(grad, (x.detach() - y.sort(0)[0]) / 2, rtol=0, atol=1e-9)


def test_potential_at_a_point_has_the_mean_displacement_as_gradient():
    """Squared cost: ∇f(z) = 2(z − T(z)), T the barycentric map at z: the map of a problem with an atom of no weight."""
    x, y, a, b = cloud(763, 6), cloud(764, 5), weights(763, 6), weights(764, 5)
    t = sinkdiv.solve(x, y, a, b, eps=0.2, **tight())
    z = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(t.potentials_at(z).sum(), z)
    torch.testing.assert_close(grad, 2 * (x - t.barycentric_map()), rtol=0, atol=1e-8)


@pytest.mark.parametrize("mass", [1.0, 1.7])
def test_potentials_are_in_the_balanced_gauge(mass):
    """<a,f> = <b,g>, where the inputs are and along their changes."""
    x, y, a, b = cloud(765, 6), cloud(766, 5), weights(765, 6, mass=mass), weights(766, 5, mass=mass)

    def excess(x, a, b):
        t = sinkdiv.solve(x, y, a, b, eps=0.2, **tight())
        return (a * t.f).sum() - (b * t.g).sum()

    assert float(excess(x, a, b)) == pytest.approx(0, abs=1e-12)
    steps = [direction(767, x.shape), centred(768, a.shape) + 1 / 6, centred(769, b.shape) + 1 / 5]
    assert assert_slope(excess, [x, a, b], steps, atol=1e-8) == pytest.approx(0, abs=1e-9)
