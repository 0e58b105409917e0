"""The traps of test_traps, for the sharp value and for second derivatives (mathematics, §2, and §5, traps)."""

import pytest
import torch

import sinkdiv
from problems import CLOSE, EXPONENT, array, centred, cloud, direction, slope, tight, weights

COSTS = ["sqeuclidean", "euclidean"]
FUNCTIONS = [sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence]
VALUES = ["entropic", "sharp"]


@pytest.fixture(params=FUNCTIONS, ids=["transport", "divergence"])
def function(request):
    return request.param


@pytest.fixture(params=COSTS)
def name(request):
    return request.param


@pytest.fixture(params=VALUES)
def value(request):
    return request.param


def both_orders(function, x, *inputs, v=None, **options):
    """(gradient, Hessian-vector product) in x."""
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(function(leaf, *inputs, **options), leaf, create_graph=True)
    v = torch.linspace(-1, 1, x.numel()).view_as(x).to(x) if v is None else v
    (product,) = torch.autograd.grad((grad * v).sum(), leaf)
    return grad.detach(), product


# Arithmetic.


@pytest.mark.parametrize("d", [2, 12])
def test_data_far_from_the_origin_in_float32(function, name, value, d):
    """At 1e4 both derivatives are those at the origin; the coordinates are multiples of 1/64, exact in float32."""
    x, y = ((cloud(seed, 9, d) * 64).round().float() / 64 for seed in (840, 841))
    options = {"eps": 0.3, "cost": name, "value": value, **tight(torch.float32)}
    near = both_orders(function, x, y, **options)
    far = both_orders(function, x + 1e4, y + 1e4, **options)
    for found, expected in zip(far, near, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=d * 1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_data_on_another_scale(function, name, value, dtype, scale):
    """With the blur on that scale: gradients go like scale^(p−1), Hessians like scale^(p−2)."""
    p = EXPONENT[name]
    x, y = cloud(842, 9, dtype=dtype), cloud(843, 8, dtype=dtype)
    options = {"cost": name, "value": value, **tight(dtype)}
    unit = both_orders(function, x, y, blur=0.3, **options)
    scaled = both_orders(function, x * scale, y * scale, blur=0.3 * scale, **options)
    for order, (found, expected) in enumerate(zip(scaled, unit, strict=True), start=1):
        torch.testing.assert_close(found / scale ** (p - order), expected, rtol=0, atol=100 * CLOSE[dtype])


def test_sharp_gradient_is_not_doubled(route):
    """One point on each side: 2(x−y), and 2 in second order, whatever ε; unbalanced, P·2(x−y)(1 − c/(ε+2ρ))."""
    x, y = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    v = torch.tensor([[0.3, -0.4]]).double()
    for function in FUNCTIONS:
        grad, product = both_orders(function, x, y, v=v, eps=0.5, value="sharp")
        torch.testing.assert_close(grad, 2 * (x - y), rtol=0, atol=1e-12)
        torch.testing.assert_close(product, 2 * v, rtol=0, atol=1e-12)
    eps, rho, c = 0.5, 2.0, 2.0
    mass = torch.tensor(-c / (eps + 2 * rho)).double().exp()
    grad, _ = both_orders(sinkdiv.transport_cost, x, y, eps=eps, rho=rho, value="sharp", **tight())
    torch.testing.assert_close(grad, 2 * (x - y) * mass * (1 - c / (eps + 2 * rho)), rtol=0, atol=1e-8)


def test_unbalanced_gradient_uses_the_actual_plan(name):
    """A well-known library is off by (ρ+ε/2)/(ρ+ε): the entropic gradient is Σ_j P_ij ∂₁c, with P's own marginals."""
    x, y, a, b = cloud(844, 6), cloud(845, 5) + 0.2, weights(844, 6), weights(845, 5, mass=1.5)
    options = {"eps": 0.2, "rho": 0.5, "cost": name, **tight()}
    leaf = x.clone().requires_grad_()
    t = sinkdiv.solve(leaf, y, a, b, **options)
    (grad,) = torch.autograd.grad(t.value, leaf)
    difference = array(x)[:, None] - array(y)[None]
    slopes = 2 * difference if name == "sqeuclidean" else difference / (difference**2).sum(-1, keepdims=True) ** 0.5
    expected = (array(t.plan())[:, :, None] * slopes).sum(1)
    torch.testing.assert_close(grad, torch.tensor(expected), rtol=0, atol=1e-9)
    wrong = (0.5 + 0.1) / (0.5 + 0.2)
    assert float((wrong * grad - torch.tensor(expected)).abs().max()) > 1e-3


# Degenerate clouds.


@pytest.mark.parametrize("d", [2, 12])
def test_coincident_points(function, dtype, name, value, d):
    """Everything is finite; with the squared cost, where nothing is special, right by differences."""
    x = cloud(846, 6, d, dtype=dtype)
    x[3] = x[0]
    y = cloud(847, 5, d, dtype=dtype)
    y[2] = x[0]
    options = {"eps": 0.3, "cost": name, "value": value, **tight(dtype)}
    v = direction(848, x.shape).to(dtype)
    grad, product = both_orders(function, x, y, v=v, **options)
    assert torch.isfinite(grad).all()
    assert torch.isfinite(product).all()
    if name == "sqeuclidean" and dtype == torch.float64:
        expected = slope(lambda t: function(x + t * v, y, **options))
        assert float((grad * v).sum()) == pytest.approx(expected, abs=1e-7)


def test_sharp_gradient_at_coincident_points_takes_the_subgradient_of_zero(name):
    """The pair that coincides pulls nowhere; all others do as by Q23's formula dL/dC, times ∂₁c."""
    x, y = cloud(849, 5), cloud(850, 4)
    y[2] = x[0]
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(sinkdiv.solve(leaf, y, eps=0.3, cost=name, **tight()).sharp, leaf)
    distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    C = distances.square() if name == "sqeuclidean" else distances
    C.requires_grad_()
    (of_costs,) = torch.autograd.grad(sinkdiv.solve_matrix(C, eps=0.3, **tight()).sharp, C)
    difference = x[:, None] - y[None]
    length = difference.norm(dim=-1, keepdim=True)
    slopes = 2 * difference if name == "sqeuclidean" else torch.where(length > 0, difference / length, 0)
    torch.testing.assert_close(found, (of_costs[:, :, None] * slopes).sum(1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("rho", [None, 0.5])
def test_identical_clouds(dtype, name, value, rho):
    """The same tensor or a copy: gradient zero. With the copy held, the Hessian is that of S at its minimum: finite."""
    x = cloud(851, 8, dtype=dtype)
    options = {"eps": 0.1, "cost": name, "rho": rho, "value": value, **tight(dtype)}
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(sinkdiv.sinkhorn_divergence(leaf, leaf, **options), leaf, create_graph=True)
    (product,) = torch.autograd.grad((grad * x).sum(), leaf, allow_unused=True)
    torch.testing.assert_close(grad.detach(), torch.zeros_like(x), rtol=0, atol=20 * CLOSE[dtype])
    if product is not None:  # S(α,α) = 0 wherever α is
        torch.testing.assert_close(product, torch.zeros_like(x), rtol=0, atol=200 * CLOSE[dtype])
    grad, product = both_orders(sinkdiv.sinkhorn_divergence, x, x.clone(), **options)
    torch.testing.assert_close(grad, torch.zeros_like(x), rtol=0, atol=20 * CLOSE[dtype])
    assert torch.isfinite(product).all()


@pytest.mark.parametrize("points", [(1, 1), (1, 7), (7, 1)])
def test_single_points(function, dtype, name, value, points):
    """Against the closed form: the only plan is the product, so that OT = <C,abᵀ>, and self terms likewise or 0."""
    n, m = points
    x, y = cloud(852, n, dtype=dtype), cloud(853, m, dtype=dtype) + 1
    options = {"eps": 10.0, "cost": name, "value": value, **tight(dtype)}
    found = both_orders(sinkdiv.transport_cost, x, y, **options)

    def mean_cost(x, y):
        squared = (x[:, None] - y[None]).square().sum(-1)
        return (squared if name == "sqeuclidean" else squared.sqrt()).mean()

    for have, want in zip(found, both_orders(mean_cost, x, y), strict=True):
        torch.testing.assert_close(have, want, rtol=0, atol=10 * CLOSE[dtype])
    assert all(torch.isfinite(one).all() for one in both_orders(function, x, y, **options))


@pytest.mark.parametrize("rho", [None, 0.5])
def test_zero_diameter(function, dtype, name, value, rho):
    """All points of both clouds in one place: gradient zero, second order finite."""
    x, y = torch.full((5, 2), 3.0, dtype=dtype), torch.full((4, 2), 3.0, dtype=dtype)
    grad, product = both_orders(function, x, y, eps=0.1, cost=name, rho=rho, value=value)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=CLOSE[dtype])
    assert torch.isfinite(product).all()


# Soft marginals that let mass go.


@pytest.mark.parametrize("far", [3.0, 12.0])
@pytest.mark.filterwarnings("ignore::sinkdiv.ConvergenceWarning")
def test_outliers_under_soft_marginals(function, dtype, name, value, far):
    """A point too far to exchange mass, e^{−c/(ε+2ρ)} = 0, has no derivatives, and the others those without it."""
    x, y = cloud(870, 6, dtype=dtype), cloud(871, 5, dtype=dtype)
    a, b = weights(870, 6, dtype=dtype), weights(871, 5, dtype=dtype)
    more_x = torch.cat([x, x.new_full((1, 2), 1 + far * 10 ** (2 - EXPONENT[name]))])
    more_a = torch.cat([a, a.new_full((1,), 0.2)])
    tol = 1e-8 if dtype == torch.float64 else 1e-4
    options = {"eps": 0.05, "rho": 0.05, "cost": name, "value": value, "tol": tol}
    v = direction(872, x.shape).to(dtype)
    expected = both_orders(function, x, y, a, b, v=v, **options)
    found = both_orders(function, more_x, y, more_a, b, v=torch.cat([v, v.new_ones(1, 2)]), **options)
    for have, want in zip(found, expected, strict=True):
        torch.testing.assert_close(have[:-1], want, rtol=0, atol=20 * tol)
        torch.testing.assert_close(have[-1], torch.zeros_like(have[-1]), rtol=0, atol=20 * tol)


@pytest.mark.parametrize("c", [10.0, 100.0, 1e4])
def test_nothing_is_transported(dtype, value, c):
    """One point each, whose mass e^{−c/(ε+2ρ)}… (§5, 8) underflows: in c nothing, in a only ρ + εb."""
    inputs = [torch.tensor([one], dtype=dtype, requires_grad=True) for one in (c, 0.7, 1.3)]
    t = sinkdiv.solve_matrix(inputs[0].view(1, 1), inputs[1], inputs[2], eps=0.05, rho=0.05)
    grads = torch.autograd.grad(t.value if value == "entropic" else t.sharp, inputs, create_graph=True)
    expected = [0.0, 0.05 + 0.05 * 1.3, 0.05 + 0.05 * 0.7] if value == "entropic" else [0.0, 0.0, 0.0]
    for grad, want in zip(grads, expected, strict=True):
        assert grad.item() == pytest.approx(want, abs=1e-6)
    (second,) = torch.autograd.grad(grads[0].sum(), inputs[0], allow_unused=True)
    assert second is None or second.item() == pytest.approx(0, abs=1e-6)


# Weights of zero.


@pytest.mark.parametrize("rho", [None, 0.5])
def test_second_derivatives_with_weights_of_zero(function, name, value, rho):
    """They are those without the weightless points; along those points' own motion and mass they are finite."""
    x, y, a, b = cloud(854, 6), cloud(855, 5), weights(854, 6), weights(855, 5)
    more_x, more_a = torch.cat([x, x.new_tensor([[1.4, -0.3]])]), torch.cat([a, a.new_zeros(1)])
    more_y, more_b = torch.cat([y, y.new_tensor([[0.4, 1.3]])]), torch.cat([b, b.new_zeros(1)])
    v, w = direction(856, x.shape), centred(857, a.shape)
    options = {"eps": 0.2, "cost": name, "rho": rho, "value": value, **tight()}
    results = []
    for inputs, steps in (
        ((x, y, a, b), (v, w)),
        ((more_x, more_y, more_a, more_b), (torch.cat([v, v.new_zeros(1, 2)]), torch.cat([w, w.new_zeros(1)]))),
    ):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        grads = torch.autograd.grad(function(*leaves, **options), leaves, create_graph=True)
        form = (grads[0] * steps[0]).sum() + (grads[2] * steps[1]).sum()
        results.append(torch.autograd.grad(form, leaves))
        assert all(torch.isfinite(one).all() for one in (*grads, *results[-1]))
    for expected, found in zip(*results, strict=True):
        moved = found[: len(expected)] - expected
        moved = moved - moved.mean() if moved.ndim == 1 and rho is None else moved
        torch.testing.assert_close(moved, torch.zeros_like(moved), rtol=0, atol=1e-8)


@pytest.mark.parametrize("rho", [None, 0.5])
def test_plan_and_potentials_with_weights_of_zero(rho):
    """Their derivatives are finite, and those of the other points are what they are without the weightless one."""
    x, y, a, b = cloud(858, 6), cloud(859, 5), weights(858, 6), weights(859, 5)
    results = []
    for extra in (False, True):
        inputs = (torch.cat([x, x.new_tensor([[1.4, -0.3]])]), torch.cat([a, a.new_zeros(1)])) if extra else (x, a)
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        t = sinkdiv.solve(leaves[0], y, leaves[1], b, eps=0.2, rho=rho, **tight())
        loss = t.plan().square().sum() + t.g.square().sum() + t.f[:6].square().sum() + t.marginals()[1].square().sum()
        results.append(torch.autograd.grad(loss, leaves))
        assert all(torch.isfinite(grad).all() for grad in results[-1])
    for expected, found in zip(*results, strict=True):
        moved = found[:6] - expected
        moved = moved - moved.mean() if moved.ndim == 1 and rho is None else moved
        torch.testing.assert_close(moved, torch.zeros_like(moved), rtol=0, atol=1e-8)


@pytest.mark.parametrize("tiny", [1e-8, 1e-20, 1e-35, 1e-300])
def test_tiny_weights(function, value, tiny):
    """The derivatives of the other points are those with a weight of zero; subnormal products do no harm."""
    x, y = cloud(860, 6), cloud(861, 5)
    a = weights(860, 6)
    a[0] = 0
    a /= a.sum()
    small = a.clone()
    small[0] = tiny
    options = {"eps": 0.2, "value": value, **tight()}
    expected = both_orders(function, x, y, a, v=torch.ones_like(x), **options)
    found = both_orders(function, x, y, small / small.sum(), v=torch.ones_like(x), **options)
    for have, want in zip(found, expected, strict=True):
        torch.testing.assert_close(have, want, rtol=0, atol=1e-8 + 100 * tiny)


# Precision and regions.


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rho", [None, 0.5])
def test_half_inputs(function, name, value, half, rho):
    """Computed in float32: both derivatives are float32's of the same numbers, rounded once."""
    x, y = (cloud(862, 8).to(half), cloud(863, 7).to(half))
    options = {"eps": 0.2, "cost": name, "rho": rho, "value": value, "tol": 1e-4}
    found = both_orders(function, x, y, **options)
    expected = both_orders(function, x.float(), y.float(), **options)
    for have, want in zip(found, expected, strict=True):
        assert have.dtype == half
        torch.testing.assert_close(have.float(), want, rtol=0, atol=4 * torch.finfo(half).eps * float(want.abs().max()))


@pytest.mark.parametrize("n", [9, 600])
def test_autocast_regions(function, dtype, value, n):
    """Where matrix products run in bfloat16: forward, backward and double backward inside are those outside."""
    x, y = cloud(864, n, 3, dtype=dtype), cloud(865, n - 1, 3, dtype=dtype)
    options = {"eps": 0.3, "value": value, "tol": 1e-5}
    if n > 100 and (function is sinkdiv.sinkhorn_divergence or dtype == torch.float64):
        pytest.skip("one large problem is enough")
    outside = both_orders(function, x, y, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = both_orders(function, x, y, **options)
    for found, expected in zip(inside, outside, strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_the_callers_tensors_are_left_alone(function, value):
    """Neither points, weights nor cotangents change, in any order of derivative."""
    tensors = [cloud(866, 7), cloud(867, 6), weights(866, 7), weights(867, 6)]
    before = [tensor.clone() for tensor in tensors]
    leaves = [tensor.requires_grad_() for tensor in tensors]
    grads = torch.autograd.grad(function(*leaves, eps=0.2, value=value), leaves, create_graph=True)
    torch.autograd.grad(sum(grad.square().sum() for grad in grads), leaves)
    for tensor, old in zip(tensors, before, strict=True):
        torch.testing.assert_close(tensor.detach(), old, rtol=0, atol=0)


def test_inputs_that_move_before_backward_are_noticed_or_do_not_matter(value):
    """An optimiser steps in place between forward and backward: the old gradient, or PyTorch's error; no mixture."""
    x, y = cloud(868, 7), cloud(869, 6)
    options = {"eps": 0.2, "value": value}
    expected = both_orders(sinkdiv.sinkhorn_divergence, x, y, **options)
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(sinkdiv.sinkhorn_divergence(leaf, y, **options), leaf, create_graph=True)
    loss = sinkdiv.sinkhorn_divergence(leaf, y, **options)
    with torch.no_grad():
        leaf.add_(1.0)
    try:
        (first,) = torch.autograd.grad(loss, leaf)
    except RuntimeError as error:
        assert "inplace" in str(error)  # noqa: PT017
    else:
        torch.testing.assert_close(first, expected[0], rtol=0, atol=1e-12)
    v = torch.linspace(-1, 1, x.numel()).view_as(x).double()
    try:
        (second,) = torch.autograd.grad((grad * v).sum(), leaf)
    except RuntimeError as error:
        assert "inplace" in str(error)  # noqa: PT017
    else:
        torch.testing.assert_close(second, expected[1], rtol=0, atol=1e-12)
