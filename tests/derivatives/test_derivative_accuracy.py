"""How accurate derivatives are: Q23's stability in the tolerance, the dtype's resolution, and the warning beyond it."""

import math
import warnings

import pytest
import torch

import sinkdiv
from problems import cloud, direction, slope, tight, weights
from sinkdiv.solvers import hessian

FUNCTIONS = [sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence]
REFERENCE = {"tol": 1e-12, "solver": sinkdiv.Auto(max_passes=100_000)}
#: The relative error of a gradient is at most this multiple of the tolerance.
FACTOR = 5.0


def problem(dtype=torch.float64):
    return tuple(
        tensor.to(dtype) for tensor in (cloud(800, 60), cloud(801, 50) + 0.2, weights(800, 60), weights(801, 50))
    )


def gradients(function, dtype=torch.float64, **options):
    """In points, and in weights up to constants."""
    leaves = [tensor.clone().requires_grad_() for tensor in problem(dtype)]
    grads = torch.autograd.grad(function(*leaves, eps=0.02, value="sharp", **options), leaves)
    return [(w - w.mean() if w.ndim == 1 else w).double() for w in grads]


def errors(found, reference):
    return [float((one - exact).norm() / exact.norm()) for one, exact in zip(found, reference, strict=True)]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("rho", [None, 0.5])
@pytest.mark.parametrize("way", ["default", "streamed"])
def test_error_of_the_gradient_is_at_most_proportional_to_the_tolerance(request, function, way, rho):
    """Q23's stability: with the plan's actual marginals in the linear system, over eight orders of magnitude."""
    if way == "streamed":
        request.getfixturevalue("streamed")
    reference = gradients(function, rho=rho, **REFERENCE)
    for tol in (1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-10):
        found = gradients(function, rho=rho, tol=tol, solver=sinkdiv.Auto(max_passes=50_000))
        assert max(errors(found, reference)) <= FACTOR * tol + 1e-10


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("rho", [None, 0.5])
def test_error_of_the_gradient_in_float32(function, rho):
    """Likewise, down to float32's resolution of potentials: a few units of 6e-8·C/ε."""
    reference = gradients(function, rho=rho, **REFERENCE)
    for tol in (1e-2, 1e-3, 1e-4):
        found = gradients(function, torch.float32, rho=rho, tol=tol, solver=sinkdiv.Auto(max_passes=50_000))
        assert max(errors(found, reference)) <= FACTOR * tol + 1e-4


@pytest.mark.parametrize("value", ["entropic", "sharp"])
def test_error_of_a_hessian_product_falls_with_the_tolerance(value):
    x, y, a, b = problem()
    v = direction(802, x.shape)

    def product(**how):
        leaf = x.clone().requires_grad_()
        loss = sinkdiv.sinkhorn_divergence(leaf, y, a, b, eps=0.05, value=value, **how)
        (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
        return torch.autograd.grad((grad * v).sum(), leaf)[0]

    reference = product(**REFERENCE)
    for tol in (1e-2, 1e-4, 1e-6, 1e-8):
        assert errors([product(tol=tol)], [reference])[0] <= 10 * tol + 1e-9


# The warning.


def test_a_linear_system_that_is_cut_short_warns(monkeypatch):
    """Three products are too few here; the message says how inaccurate the derivative is, and what helps."""
    monkeypatch.setattr(hessian, "FACTORISED_SIDE", 0)
    monkeypatch.setattr(hessian, "FACTORISABLE_SIDE", 0)
    whole = hessian.conjugate_gradients

    def cut_short(apply, v, enough, most, *rest):
        return whole(apply, v, enough, 3, *rest)

    monkeypatch.setattr(hessian, "conjugate_gradients", cut_short)
    x, y, a, b = problem()
    x.requires_grad_()
    loss = sinkdiv.transport_cost(x, y, a, b, eps=0.02, value="sharp", tol=1e-6)
    with pytest.warns(sinkdiv.DerivativeWarning, match="residual.*float64|residual.*eps"):
        loss.backward()
    with pytest.warns(sinkdiv.DerivativeWarning):
        torch.autograd.grad(sinkdiv.solve(x, y, a, b, eps=0.02, tol=1e-6).f[0], x)


def circle(n):
    angles = torch.arange(n) * 2 * math.pi / n
    return torch.stack([angles.cos(), angles.sin()], 1).double()


GRID = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double() / 4
ORDINARY = {
    "random": (cloud(803, 30), cloud(804, 20)),
    "equal": (cloud(803, 30), cloud(803, 30)),
    "translated": (cloud(803, 30), cloud(803, 30) + 0.5),
    "circles": (circle(8), 2 * circle(8)),
    "grids": (GRID, GRID + 0.1),
    "one point each": (cloud(803, 1), cloud(804, 1)),
    "one point": (cloud(803, 1), cloud(804, 9)),
    "two points": (cloud(803, 2), cloud(804, 2)),
    "all in one place": (torch.ones(4, 2).double(), torch.ones(3, 2).double()),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("value", ["entropic", "sharp"])
@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_problems_do_not_warn(name, value, dtype):
    """Nor where the right-hand side of a system vanishes by symmetry; and float32 agrees with float64."""
    results = []
    for kind, tol in ((torch.float64, 1e-10), (dtype, 1e-4)):
        x, y = (points.to(kind, copy=True) for points in ORDINARY[name])
        x.requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss = sinkdiv.sinkhorn_divergence(x, y, eps=0.2, value=value, tol=tol)
            (grad,) = torch.autograd.grad(loss, x, create_graph=True)
            (product,) = torch.autograd.grad((grad * torch.linspace(-1, 1, x.numel()).view_as(x)).sum(), x)
        results.append((grad.detach().double(), product.double()))
    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-3), (torch.float64, 1e-3), (torch.float64, 1e-6)])
@pytest.mark.parametrize(("n", "d"), [(8, 9), (64, 20), (64, 100)])
def test_high_dimensional_data_does_not_warn(n, d, dtype, tol):
    """There plans between a cloud and itself are the identity; the gradient is float64's at a tight tolerance."""
    results = []
    for kind, to in ((torch.float64, 1e-9), (dtype, tol)):
        x, y = cloud(815, n, d, dtype=kind).requires_grad_(), cloud(816, n, d, dtype=kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if to < tol else "error")
            loss = sinkdiv.sinkhorn_divergence(
                x, y, eps=0.05, value="sharp", tol=to, solver=sinkdiv.Auto(max_passes=50_000)
            )
            results.append(torch.autograd.grad(loss, x)[0].double())
    assert errors(results[1:], results[:1])[0] < 20 * tol


@pytest.mark.filterwarnings("ignore::sinkdiv.DerivativeWarning", "ignore::sinkdiv.ConvergenceWarning")
@pytest.mark.parametrize("eps", [1e-2, 1e-3, 1e-4])
def test_float32_at_a_tiny_eps_warns_or_is_right(eps):
    """Where no warning came, within the tolerance and 300 times the rounding of C/ε, which the system amplifies."""
    x, y = cloud(805, 30), cloud(806, 25)
    reference = x.clone().requires_grad_()
    exact = sinkdiv.transport_cost(
        reference, y, eps=eps, value="sharp", tol=1e-8, solver=sinkdiv.Auto(max_passes=100_000)
    )
    (expected,) = torch.autograd.grad(exact, reference)
    leaf = x.float().requires_grad_()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss = sinkdiv.transport_cost(leaf, y.float(), eps=eps, value="sharp")
        (found,) = torch.autograd.grad(loss, leaf)
    assert torch.isfinite(found).all()
    if not any(issubclass(w.category, (sinkdiv.DerivativeWarning, sinkdiv.ConvergenceWarning)) for w in caught):
        rounding = torch.finfo(torch.float32).eps / 2 / eps
        assert errors([found.double()], [expected])[0] < FACTOR * 1e-3 + 300 * rounding


# Plans that are almost a matching: their linear systems are almost singular, their derivatives are not.


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("scale", "gap"), [(1, 1), (10, 3)])
@pytest.mark.parametrize("n", [2, 5, 10])
@pytest.mark.parametrize("eps", [1e-2, 1e-3, 1e-4])
@pytest.mark.filterwarnings("ignore::sinkdiv.DerivativeWarning", "ignore::sinkdiv.ConvergenceWarning")
def test_matchings(dtype, scale, gap, n, eps):
    """Points moved by far less than they are apart: ∂/∂x_i = 2a_i(x_i − y_i), and the Hessian of the transport is 2a_i.

    A marginal error of 1e-3 may sit in one point, of weight 1/n; 20 times the rounding of C/ε is the arithmetic's.
    """
    x = scale * cloud(807, n, 2) + gap * torch.arange(n).double()[:, None]
    y = x + 0.02 * direction(808, x.shape)
    v = direction(809, x.shape)
    leaf = x.to(dtype, copy=True).requires_grad_()
    other = y.to(dtype)
    loss = sinkdiv.transport_cost(leaf, other, eps=eps, value="sharp")
    (plain,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
    (product,) = torch.autograd.grad((grad * v.to(dtype)).sum(), leaf)
    tolerance = 2e-3 * n + 10 * torch.finfo(dtype).eps * float(torch.cdist(x, y).max()) ** 2 / eps
    exact = 2 / n * (leaf - other).detach().double()
    for found, expected in ((plain, exact), (grad.detach(), exact), (product, 2 / n * v)):
        assert float((found.double() - expected).abs().max() / expected.abs().max()) < tolerance


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("n", "eps"), [(5, 1e-2), (5, 1e-3), (5, 1e-4), (10, 1e-3), (10, 1e-4), (30, 1e-3)])
@pytest.mark.filterwarnings("ignore::sinkdiv.DerivativeWarning", "ignore::sinkdiv.ConvergenceWarning")
def test_near_matchings(dtype, function, n, eps):
    """Between matchings and diffuse plans, default options: within 2 % of a difference of tight float64 solves."""
    x = cloud(11, n)
    y = x + 0.02 * direction(1, x.shape)
    v = direction(7, x.shape)
    expected = slope(
        lambda t: function(x + t * v, y, eps=eps, value="sharp", tol=1e-9, solver=sinkdiv.Auto(max_passes=100_000)),
        step=1e-3 * eps**0.5,
    )
    leaf = x.to(dtype, copy=True).requires_grad_()
    (grad,) = torch.autograd.grad(function(leaf, y.to(dtype), eps=eps, value="sharp"), leaf, create_graph=True)
    (product,) = torch.autograd.grad((grad * v.to(dtype)).sum(), leaf)
    grad = grad.detach().double()
    scale = float(grad.norm() * v.norm())
    assert float((grad * v).sum()) == pytest.approx(expected, abs=2e-2 * scale)
    assert float(product.abs().max()) < 20.0  # 2a_i is at most 0.4 here


def test_repeated_products_from_one_graph_are_the_same():
    """The linear system is prepared once and then used by all backward passes."""
    x, y, a, b = problem()
    x.requires_grad_()
    loss = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.05, value="sharp", **tight())
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    v = direction(810, x.shape)
    first, second = (torch.autograd.grad((grad * v).sum(), x, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


# The ways of solving the linear systems.


def cholesky(monkeypatch):
    """As small problems are."""


def stored(monkeypatch):
    """Conjugate gradients with a stored plan."""
    monkeypatch.setattr(hessian, "FACTORISED_SIDE", 0)
    monkeypatch.setattr(hessian, "FACTORISABLE_SIDE", 0)


def streamed_products(monkeypatch):
    """Conjugate gradients whose products stream."""
    stored(monkeypatch)
    monkeypatch.setattr(hessian, "STORED_ENTRIES", 0)


@pytest.mark.parametrize("kernels", ["native", "reference"])
@pytest.mark.parametrize("rho", [None, 0.5])
@pytest.mark.parametrize("value", ["entropic", "sharp"])
def test_the_ways_of_solving_agree(request, kernels, rho, value):
    """Cholesky, and conjugate gradients with stored or streamed products: gradients, Hessian-vector products, plans."""
    if kernels == "reference":
        request.getfixturevalue("without_native")
    x, y, a, b = problem()
    v = direction(811, x.shape)
    results = []
    for way in (cholesky, stored, streamed_products):
        with pytest.MonkeyPatch.context() as monkeypatch:
            way(monkeypatch)
            leaf = x.clone().requires_grad_()
            loss = sinkdiv.sinkhorn_divergence(leaf, y, a, b, eps=0.1, rho=rho, value=value, **tight())
            (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
            (product,) = torch.autograd.grad((grad * v).sum(), leaf)
            plan = sinkdiv.solve(leaf, y, a, b, eps=0.1, rho=rho, **tight()).plan()
            (of_plan,) = torch.autograd.grad(plan.square().sum(), leaf)
        results.append((grad.detach(), product, of_plan))
    for other in results[1:]:
        for found, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_large_problems(function):
    """n = 600 and m = 700, beyond what is factorised at once: a directional derivative by differences."""
    x, y = cloud(812, 600), cloud(813, 700) + 0.1
    v = direction(814, x.shape)
    options = {"eps": 0.1, "value": "sharp", "tol": 1e-8, "solver": sinkdiv.Auto(max_passes=50_000)}
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(function(leaf, y, **options), leaf)
    expected = slope(lambda t: function(x + t * v, y, **options))
    assert (grad * v).sum().item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("module", [sinkdiv.TransportCost, sinkdiv.SinkhornDivergence])
@pytest.mark.parametrize("value", ["entropic", "sharp"])
def test_a_warm_start_changes_no_derivative(module, value):
    """Nor does it leak the graph of an earlier call."""
    x, y, a, b = problem()
    cold, warm = (module(eps=0.1, value=value, **tight(warm_start=start)) for start in (False, True))
    for t in (0.0, 0.01, 0.02):
        results = []
        for criterion in (cold, warm):
            leaf = (x + t).requires_grad_()
            (grad,) = torch.autograd.grad(criterion(leaf, y, a, b), leaf, create_graph=True)
            results.append((grad.detach(), *torch.autograd.grad(grad.square().sum(), leaf)))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
