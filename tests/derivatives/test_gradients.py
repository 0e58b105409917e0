"""First derivatives against finite differences, and refusals where there is none (no silent zero)."""

import pytest
import torch

import sinkdiv
from problems import CLOSE, array, centred, cloud, direction, slope, tight, weights

COSTS = ["sqeuclidean", "euclidean"]
FUNCTIONS = [sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence]
RHOS = [None, 0.5, (0.3, 2.0)]


@pytest.fixture(params=FUNCTIONS, ids=["transport", "divergence"])
def function(request):
    return request.param


def problem(mass_a=1.0, mass_b=1.0):
    return cloud(40, 7), cloud(41, 6) + 0.2, weights(40, 7, mass=mass_a), weights(41, 6, mass=mass_b)


def assert_slopes_match(function, tensors, directions, options, atol=1e-7):
    """<gradient, direction> equals the central difference of fourth order (its own error is about 1e-9 here)."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    grads = torch.autograd.grad(function(*leaves, **options), leaves)
    expected = slope(lambda t: function(*(p + t * d for p, d in zip(tensors, directions, strict=True)), **options))
    found = sum((grad * step).sum().item() for grad, step in zip(grads, directions, strict=True))
    assert found == pytest.approx(expected, abs=atol)


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("which", [0, 1], ids=["x", "y"])
def test_points(function, route, name, rho, which):
    tensors = problem(1.7, 1.7 if rho is None else 0.6)
    directions = [torch.zeros_like(tensor) for tensor in tensors]
    directions[which] = direction(40, tensors[which].shape)
    assert_slopes_match(function, tensors, directions, {"eps": 0.2, "rho": rho, "cost": name, **tight()})


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("mass", [1.0, 1.7])
@pytest.mark.parametrize("change", [0.0, 1.0], ids=["masses fixed", "masses grow"])
def test_weights_with_hard_marginals(function, route, name, mass, change):
    """Along directions in which the two masses change equally, the others being infeasible."""
    x, y, a, b = tensors = problem(mass, mass)
    zero_x, zero_y = torch.zeros_like(x), torch.zeros_like(y)
    da, db = centred(42, a.shape) + change / len(a), centred(43, b.shape) + change / len(b)
    options = {"eps": 0.2, "cost": name, **tight()}
    # Steps of 1e-3 must leave the weights positive, which are at least 0.02.
    assert_slopes_match(function, tensors, [zero_x, zero_y, da, db], options)
    if change == 0:
        assert_slopes_match(function, tensors, [zero_x, zero_y, da, 0 * db], options)
        assert_slopes_match(function, tensors, [zero_x, zero_y, 0 * da, db], options)


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("rho", RHOS[1:])
@pytest.mark.parametrize("which", [2, 3], ids=["a", "b"])
def test_weights_with_soft_marginals(function, route, name, rho, which):
    """Along any direction; a well-known library is off by (ρ+ε/2)/(ρ+ε) here."""
    tensors = problem(0.6, 1.7)
    directions = [torch.zeros_like(tensor) for tensor in tensors]
    directions[which] = direction(44, tensors[which].shape)
    assert_slopes_match(function, tensors, directions, {"eps": 0.2, "rho": rho, "cost": name, **tight()})


@pytest.mark.parametrize("rho", RHOS)
def test_everything_at_once(function, route, rho):
    tensors = problem()
    directions = [direction(45, t.shape) if t.ndim == 2 else centred(46, t.shape) for t in tensors]
    assert_slopes_match(function, tensors, directions, {"eps": 0.2, "rho": rho, **tight()})


@pytest.mark.parametrize("d", [1, 9, 20])
@pytest.mark.parametrize("name", COSTS)
def test_points_of_other_dimensions(function, route, name, d):
    tensors = cloud(47, 6, d), cloud(48, 5, d)
    directions = [direction(47, tensor.shape) for tensor in tensors]
    assert_slopes_match(function, tensors, directions, {"eps": 0.5, "cost": name, **tight()})


@pytest.mark.parametrize("rho", RHOS)
def test_cost_matrix_has_the_plan_as_gradient(rho):
    """∂OT_ε/∂C = P."""
    C, a, b = cloud(49, 7, 6), weights(49, 7), weights(50, 6)
    options = {"eps": 0.1, "rho": rho, **tight()}
    leaf = C.clone().requires_grad_()
    transport = sinkdiv.solve_matrix(leaf, a, b, **options)
    (grad,) = torch.autograd.grad(transport.value, leaf)
    torch.testing.assert_close(grad, transport.plan().detach(), rtol=0, atol=1e-12)

    def value(C, a, b, **options):
        return sinkdiv.solve_matrix(C, a, b, **options).value

    directions = [direction(51, C.shape), centred(51, a.shape), centred(52, b.shape)]
    assert_slopes_match(value, (C, a, b), directions, options)


def test_a_cost_network_learns_through_the_matrix():
    """The chain rule through a matrix that was computed from a parameter."""
    x, y = cloud(53, 6), cloud(54, 5)

    def value(scale, **options):
        return sinkdiv.solve_matrix(torch.cdist(x * scale, y * scale), **options).value

    assert_slopes_match(value, (torch.tensor([1.3, 0.7], dtype=torch.float64),), (direction(53, (2,)),),
                        {"eps": 0.2, **tight()})  # fmt: skip


@pytest.mark.parametrize("name", COSTS)
def test_one_leaf_in_both_arguments(function, route, name):
    """Both arguments are functions of one tensor: the derivative has both parts, once each."""
    x, step = cloud(55, 6), direction(55, (6, 2))
    a = weights(55, 6)

    def value(x, a, **options):
        return function(x, 0.5 * x.flip(0) + 0.1, a, a.flip(0), **options)

    options = {"eps": 0.2, "cost": name, **tight()}
    assert_slopes_match(value, (x, a), (step, centred(56, a.shape)), options)


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("rho", RHOS)
def test_the_same_tensor_in_both_arguments(route, name, rho):
    """OT_ε(α,α), of which the symmetric solver finds one potential, has the whole derivative; S_ε(α,α) has none."""
    x, a = cloud(57, 6), weights(57, 6)
    options = {"eps": 0.2, "cost": name, "rho": rho, **tight()}

    def itself(x, a, **options):
        return sinkdiv.transport_cost(x, x, a, a, **options)

    assert_slopes_match(itself, (x, a), (direction(57, x.shape), centred(57, a.shape)), options)
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(sinkdiv.sinkhorn_divergence(leaf, leaf, a, a, **options), leaf)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("rho", [None, 0.5])
def test_batch_gradients_equal_those_of_a_loop(function, dtype, route, name, rho):
    x, y = cloud(58, 7, batch=3, dtype=dtype), cloud(59, 6, batch=3, dtype=dtype)
    a, b = weights(58, 7, batch=3, dtype=dtype), weights(59, 6, batch=3, dtype=dtype)
    options = {"eps": 0.2, "cost": name, "rho": rho, **tight(dtype)}
    factor = torch.tensor([1.0, -2.0, 0.5], dtype=dtype)

    def gradients(value_of):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, y, a, b)]
        return torch.autograd.grad((factor * value_of(*leaves)).sum(), leaves)

    together = gradients(lambda *batch: function(*batch, **options))
    one_by_one = gradients(lambda *batch: torch.stack([function(*s, **options) for s in zip(*batch, strict=True)]))
    for found, expected in zip(together, one_by_one, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=10 * CLOSE[dtype])


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("rho", [None, 0.5])
def test_float32_gradients_agree_with_float64(function, route, name, rho):
    tensors = problem()

    def gradients(dtype):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in tensors]
        return torch.autograd.grad(function(*leaves, eps=0.2, cost=name, rho=rho, **tight(dtype)), leaves)

    for low, high in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), high, rtol=0, atol=1e-4)


@pytest.mark.parametrize("which", range(4), ids=["x", "y", "a", "b"])
def test_gradient_on_one_side_only(function, route, which):
    """What does not require a gradient gets none, and what does gets the one it gets in company."""
    options = {"eps": 0.2, **tight()}
    tensors = problem()
    everything = [tensor.clone().requires_grad_() for tensor in tensors]
    expected = torch.autograd.grad(function(*everything, **options), everything)[which]
    alone = [tensor.clone().requires_grad_(i == which) for i, tensor in enumerate(tensors)]
    function(*alone, **options).backward()
    assert [leaf.grad is not None for leaf in alone] == [i == which for i in range(4)]
    torch.testing.assert_close(alone[which].grad, expected, rtol=0, atol=1e-12)


def test_no_gradient_asked_none_given(function):
    assert not function(*problem(), eps=0.2).requires_grad
    leaves = [tensor.clone().requires_grad_() for tensor in problem()]
    with torch.no_grad():
        assert not function(*leaves, eps=0.2).requires_grad


def test_gradient_of_a_point_of_weight_zero(function, route):
    """It carries no mass, so that moving it changes nothing."""
    x, y, a, b = problem()
    a = torch.cat([a, a.new_zeros(1)])
    x = torch.cat([x, x.new_full((1, 2), 5.0)]).requires_grad_()
    (grad,) = torch.autograd.grad(function(x, y, a, b, eps=0.2, **tight()), x)
    assert (grad[-1] == 0).all()
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("rho", [None, 0.5])
@pytest.mark.parametrize("name", COSTS)
def test_gradient_with_respect_to_a_weight_of_zero(function, route, name, rho):
    """The right derivative as mass arrives at a point that has none: <∇, δ_new − δ_0>, by a one-sided difference.

    The self term bends once the new mass times e^{2f/ε} (here 500) counts, so the step is small: 1e-6.
    """
    x, y, a, b = problem()
    x = torch.cat([x, x.new_tensor([[1.5, 0.5]])])
    a = torch.cat([a, a.new_zeros(1)])
    step = torch.zeros_like(a)
    step[-1], step[0] = 1, -1
    options = {"eps": 0.2, "cost": name, "rho": rho, **tight()}
    leaf = a.clone().requires_grad_()
    (grad,) = torch.autograd.grad(function(x, y, leaf, b, **options), leaf)
    h = 1e-6
    start, one, two = (float(function(x, y, a + k * h * step, b, **options)) for k in range(3))
    expected = (-3 * start + 4 * one - two) / (2 * h)
    assert float(grad @ step) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", COSTS)
def test_self_potential_where_there_is_no_mass_is_the_softmin_of_where_there_is(route, name):
    """f(z) = −ε log Σ_j a_j exp((f_j − c(z,x_j))/ε) for every z; else S_ε has a wrong gradient in a zero weight.

    All mass in one point: f = 0 there and f(z) = c(z, x_0), without any iteration.
    """
    x = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    t = sinkdiv.solve(x, x, a, a, eps=0.1, cost=name, **tight())
    expected = torch.tensor([0.0, 4.0 if name == "sqeuclidean" else 2.0], dtype=torch.float64)
    torch.testing.assert_close(t.f, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(t.potentials_at(x), expected, rtol=0, atol=1e-9)


def test_gradient_is_scaled_by_what_arrives(function):
    x, y, a, b = problem()
    x.requires_grad_()
    value = function(x, y, a, b, eps=0.2)
    (once,) = torch.autograd.grad(value, x, retain_graph=True)
    (thrice,) = torch.autograd.grad(3 * value, x, retain_graph=True)
    torch.testing.assert_close(thrice, 3 * once)
    (again,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(again, once)


# Refusals.


def test_a_value_and_a_derivative_that_do_not_go_together_are_refused_by_name(function):
    x, y, *_ = problem()
    with pytest.raises(NotImplementedError, match="envelope"):
        function(x, y, eps=0.2, derivative="implicit")
    with pytest.raises(NotImplementedError, match="implicit"):
        function(x, y, eps=0.2, value="sharp", derivative="envelope")
    with pytest.raises(ValueError, match="value"):
        function(x, y, eps=0.2, value="blunt")
    with pytest.raises(ValueError, match="derivative"):
        function(x, y, eps=0.2, derivative="symbolic")
    with pytest.raises(ValueError, match="iterations"):
        function(x, y, eps=0.2, derivative="unrolled")
    with pytest.raises(ValueError, match="iterations"):
        function(x, y, eps=0.2, derivative="envelope", solver=sinkdiv.Unrolled(iterations=10))


def test_squared_cost_gradient_is_a_difference_of_barycentric_maps(route):
    """∂S_ε/∂x_i = 2a_i(T_aa(x_i) − T_ab(x_i)) (mathematics, §2.1)."""
    x, y, a, b = problem()
    x.requires_grad_()
    d = sinkdiv.solve_divergence(x, y, a, b, eps=0.2, **tight())
    (grad,) = torch.autograd.grad(d.value, x)
    difference = array(d.aa.barycentric_map()) - array(d.ab.barycentric_map())
    expected = 2 * array(a)[:, None] * difference
    torch.testing.assert_close(grad, torch.tensor(expected), rtol=0, atol=1e-9)
