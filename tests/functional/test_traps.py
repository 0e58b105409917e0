"""The traps that other libraries fell into (mathematics, §5, traps), and the manners of a guest."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sinkdiv
from problems import CLOSE, EXPONENT, cloud, tight, weights

COSTS = ["sqeuclidean", "euclidean"]
FUNCTIONS = [sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence]


@pytest.fixture(params=FUNCTIONS, ids=["transport", "divergence"])
def function(request):
    return request.param


@pytest.fixture(params=COSTS)
def name(request):
    return request.param


def value_and_gradient(function, x, *inputs, **options):
    x = x.clone().requires_grad_()
    value = function(x, *inputs, **options)
    return value.detach(), *torch.autograd.grad(value, x)


# Arithmetic.


@pytest.mark.parametrize("d", [2, 12])
def test_data_far_from_the_origin_in_float32(function, route, name, d):
    """|x|²−2xy+|y|² cancels at 1e4: values and gradients must be those of the data at the origin.

    The coordinates are multiples of 1/64, so that adding 1e4 is exact in float32.
    """
    x, y = ((cloud(seed, 9, d) * 64).round().float() / 64 for seed in (160, 161))
    near = value_and_gradient(function, x, y, eps=0.3, cost=name, **tight(torch.float32))
    far = value_and_gradient(function, x + 1e4, y + 1e4, eps=0.3, cost=name, **tight(torch.float32))
    for found, expected in zip(far, near, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=CLOSE[torch.float32] * d)


def test_plan_of_data_far_from_the_origin_in_float32(route):
    x, y = ((cloud(seed, 9) * 64).round().float() / 64 for seed in (162, 163))
    near = sinkdiv.solve(x, y, eps=0.1, **tight(torch.float32))
    far = sinkdiv.solve(x + 1e4, y + 1e4, eps=0.1, **tight(torch.float32))
    torch.testing.assert_close(far.plan(), near.plan(), rtol=0, atol=1e-6)
    # A result of size 1e4 has no more digits than float32 gives it.
    torch.testing.assert_close(far.barycentric_map(), near.barycentric_map() + 1e4, rtol=0, atol=2e-3)
    torch.testing.assert_close(far.potentials_at(x + 1e4), far.f, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rho", [None, 0.5])
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_data_on_another_scale(function, dtype, route, name, scale, rho):
    """With a blur on that scale all is the same in units of scaleᵖ; nothing inside has a length of its own."""
    p = EXPONENT[name]
    x, y, a, b = cloud(164, 9, dtype=dtype), cloud(165, 8, dtype=dtype), *(
        weights(seed, n, dtype=dtype) for seed, n in ((164, 9), (165, 8))
    )  # fmt: skip
    reach = None if rho is None else rho
    options = {"cost": name, **tight(dtype)}
    unit = value_and_gradient(function, x, y, a, b, blur=0.3, reach=reach, **options)
    reach = None if rho is None else rho * scale
    scaled = value_and_gradient(function, x * scale, y * scale, a, b, blur=0.3 * scale, reach=reach, **options)
    torch.testing.assert_close(scaled[0] / scale**p, unit[0], rtol=0, atol=CLOSE[dtype])
    torch.testing.assert_close(scaled[1] / scale ** (p - 1), unit[1], rtol=0, atol=10 * CLOSE[dtype])


def test_blur_far_above_and_below_the_scale_of_the_data(dtype, route, name):
    """Far above: an MMD or a distance of means. Far below: the nearest points keep together. Never NaN or a warning.

    The MMD differs from the limit by V/2ε < 1/ε; in float32 potentials carry ε units of rounding.
    """
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=dtype)
    y = x + torch.tensor([0.5, 0.0], dtype=dtype)
    limit = 0.25 if name == "sqeuclidean" else float(sinkdiv.mmd(x, y))
    eps = 100.0
    wide = float(sinkdiv.sinkhorn_divergence(x, y, eps=eps, cost=name, **tight(dtype)))
    assert wide == pytest.approx(limit, abs=1 / eps)
    narrow = sinkdiv.solve(x, x + 1e-3, blur=1e-2, cost=name)
    torch.testing.assert_close(narrow.plan(), torch.eye(3, dtype=dtype) / 3, rtol=0, atol=2e-5)


# Degenerate clouds.


@pytest.mark.parametrize("rho", [None, 0.5])
def test_identical_clouds(dtype, route, name, rho):
    """S_ε = 0 with gradient zero, as the same tensor and as a copy."""
    x = cloud(166, 9, dtype=dtype)
    for y in (x, x.clone()):
        options = {"eps": 0.1, "cost": name, "rho": rho, **tight(dtype)}
        value, grad = value_and_gradient(sinkdiv.sinkhorn_divergence, x, y, **options)
        assert float(value) == pytest.approx(0, abs=2 * CLOSE[dtype])
        torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=10 * CLOSE[dtype])


@pytest.mark.parametrize("points", [(1, 1), (1, 7), (7, 1)])
def test_single_points(dtype, route, name, points):
    """The only plan is the product, so OT_ε = <C,abᵀ>, whatever ε."""
    n, m = points
    x, y = cloud(167, n, dtype=dtype), cloud(168, m, dtype=dtype) + 1
    expected = torch.cdist(x, y).pow(EXPONENT[name]).mean()
    for eps in (0.1, 1.0, 100.0):
        t = sinkdiv.solve(x, y, eps=eps, cost=name, **tight(dtype))
        torch.testing.assert_close(t.sharp, expected, rtol=CLOSE[dtype], atol=0)
        assert float(t.value) == pytest.approx(float(expected), abs=8 * torch.finfo(dtype).eps * (5 + eps))
        value, grad = value_and_gradient(sinkdiv.sinkhorn_divergence, x, y, eps=eps, cost=name)
        assert torch.isfinite(value)
        assert torch.isfinite(grad).all()


@pytest.mark.parametrize("rho", [None, 0.5])
def test_zero_diameter(function, dtype, route, name, rho):
    """All points of both clouds in one place: nothing moves, whatever the weights."""
    x, y = torch.full((5, 2), 3.0, dtype=dtype), torch.full((4, 2), 3.0, dtype=dtype)
    value, grad = value_and_gradient(function, x, y, weights(169, 5, dtype=dtype), eps=0.1, cost=name, rho=rho)
    assert float(value) == pytest.approx(0, abs=CLOSE[dtype])
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=CLOSE[dtype])
    lower, upper = sinkdiv.solve(x, y, eps=0.1, cost=name, rho=rho).bounds
    assert float(lower) <= 1e-12
    assert float(upper) >= -1e-12


@pytest.mark.parametrize("rho", [None, 0.5])
def test_zero_cost_matrix(dtype, rho):
    t = sinkdiv.solve_matrix(torch.zeros(4, 3, dtype=dtype), eps=0.1, rho=rho)
    assert float(t.value) == pytest.approx(0, abs=CLOSE[dtype])
    torch.testing.assert_close(t.plan(), torch.full((4, 3), 1 / 12, dtype=dtype), rtol=0, atol=CLOSE[dtype])


@pytest.mark.parametrize("d", [1, 2, 12])
def test_gradient_at_coincident_points(function, dtype, route, name, d):
    """|x−y| has no derivative at 0: the subgradient 0 is taken there, and the other pairs count as always."""
    x = cloud(170, 6, d, dtype=dtype)
    x[3] = x[0]
    y = cloud(171, 5, d, dtype=dtype)
    y[2] = x[0]
    leaves = [tensor.clone().requires_grad_() for tensor in (x, y)]
    transport = sinkdiv.solve(*leaves, eps=0.3, cost=name, **tight(dtype))
    for grad in torch.autograd.grad(function(*leaves, eps=0.3, cost=name, **tight(dtype)), leaves):
        assert torch.isfinite(grad).all()
    grad, _ = torch.autograd.grad(transport.value, leaves)
    difference = x[:, None] - y[None]
    length = difference.norm(dim=-1, keepdim=True)
    slopes = 2 * difference if name == "sqeuclidean" else torch.where(length > 0, difference / length, 0)
    expected = (transport.plan().detach()[:, :, None] * slopes).sum(1)
    torch.testing.assert_close(grad, expected, rtol=0, atol=CLOSE[dtype])


@pytest.mark.parametrize("rho", [None, 0.5])
def test_zero_weights(function, dtype, route, name, rho):
    """log 0 enters nowhere: value, every gradient, plan and bounds are finite, and the plan is zero there."""
    tensors = cloud(172, 7, dtype=dtype), cloud(173, 6, dtype=dtype), weights(172, 7, dtype=dtype), None
    tensors = [*tensors[:3], torch.cat([weights(173, 4, dtype=dtype), torch.zeros(2, dtype=dtype)])]
    tensors[2][0] = 0
    tensors[2] /= tensors[2].sum()
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    value = function(*leaves, eps=0.1, cost=name, rho=rho)
    assert torch.isfinite(value)
    for grad in torch.autograd.grad(value, leaves):
        assert torch.isfinite(grad).all()
    t = sinkdiv.solve(*tensors, eps=0.1, cost=name, rho=rho)
    plan = t.plan()
    assert (plan[0] == 0).all()
    assert (plan[:, -2:] == 0).all()
    quantities = [plan, t.f, t.g, t.sharp, *t.marginals(), *t.bounds, t.apply(tensors[1]), t.potentials_at(tensors[0])]
    assert all(torch.isfinite(quantity).all() for quantity in quantities)


@given(exponent=st.integers(-30, -4))
def test_tiny_weights(dtype, route, exponent):
    """A weight of 1e-30 is as good as one of zero."""
    x, y = cloud(174, 6, dtype=dtype), cloud(175, 5, dtype=dtype)
    a = weights(174, 6, dtype=dtype)
    a[0] = 0
    a /= a.sum()
    tiny = a.clone()
    tiny[0] = 10.0**exponent
    for function in FUNCTIONS:
        expected = float(function(x, y, a, eps=0.2, **tight(dtype)))
        slack = CLOSE[dtype] + 10 * 10.0**exponent
        found = float(function(x, y, tiny / tiny.sum(), eps=0.2, **tight(dtype)))
        assert found == pytest.approx(expected, abs=slack)


# Autograd.


def test_gradient_is_not_doubled(route):
    """One point on each side, squared cost: OT_ε = |x−y|² and its derivative is 2(x−y); twice that is the trap."""
    x, y = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[0.0, 4.0]]).double()
    for function in FUNCTIONS:
        value, grad = value_and_gradient(function, x, y, eps=0.5)
        assert float(value) == pytest.approx(5, abs=1e-12)
        torch.testing.assert_close(grad, 2 * (x - y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("enabled", [True, False])
def test_grad_mode_is_left_as_it_was(function, enabled):
    """Also when the door, a solver's callback or a derivative raises."""
    x, y = cloud(176, 6).requires_grad_(), cloud(177, 5)

    def fail(check):
        raise RuntimeError("stop")

    with torch.set_grad_enabled(enabled):
        value = function(x, y, eps=0.2)
        assert value.requires_grad == enabled
        assert torch.is_grad_enabled() == enabled
        if enabled:
            value.backward()
            assert torch.is_grad_enabled()
            function(x, y, eps=0.2, value="sharp").backward()
            assert torch.is_grad_enabled()
        with pytest.raises(ValueError, match="y"):
            function(x, y * float("nan"), eps=0.2)
        assert torch.is_grad_enabled() == enabled
        with pytest.raises(RuntimeError, match="stop"):
            function(x, y, eps=0.2, solver=sinkdiv.Auto(callback=fail))
        assert torch.is_grad_enabled() == enabled


def test_inference_mode(function):
    x, y = cloud(178, 6), cloud(179, 5)
    expected = function(x, y, eps=0.2)
    with torch.inference_mode():
        torch.testing.assert_close(function(x, y, eps=0.2), expected)
        torch.testing.assert_close(function(x.clone(), y.clone(), eps=0.2), expected)


def test_nothing_global_is_changed(function):
    """Default dtype, random state, threads, anomaly detection, deterministic algorithms."""

    def state():
        return (
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_anomaly_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
            torch.is_autocast_enabled("cpu"),
            torch.random.get_rng_state().tolist(),
            threading.active_count(),
        )

    before = state()
    for dtype in (torch.float64, torch.float32, torch.float16):
        x = cloud(180, 6, 12, dtype=dtype).requires_grad_()
        function(x, cloud(181, 5, 12, dtype=dtype), eps=0.5).backward()
        sinkdiv.mmd(x, x.detach() + 1).backward()
    assert state() == before


@pytest.mark.parametrize("d", [2, 12])
def test_autocast_regions(function, dtype, route, name, d):
    """Where matrix products run in bfloat16, results and gradients are those of the region's outside."""
    x, y = cloud(182, 9, d, dtype=dtype), cloud(183, 8, d, dtype=dtype)
    outside = value_and_gradient(function, x, y, eps=0.3, cost=name, **tight(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = value_and_gradient(function, x, y, eps=0.3, cost=name, **tight(dtype))
        bounds = sinkdiv.solve(x, y, eps=0.3, cost=name).bounds
    for found, expected in zip(inside, outside, strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=CLOSE[dtype])
    torch.testing.assert_close(sinkdiv.solve(x, y, eps=0.3, cost=name).bounds, bounds, rtol=0, atol=CLOSE[dtype])


def test_autocast_regions_do_not_reach_kernel_losses(dtype):
    x, y = cloud(184, 9, 12, dtype=dtype), cloud(185, 8, 12, dtype=dtype)
    for options in ({"kernel": "energy"}, {"kernel": "gaussian", "blur": 1.0}, {"kernel": "laplacian", "blur": 1.0}):
        outside = value_and_gradient(sinkdiv.mmd, x, y, **options)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = value_and_gradient(sinkdiv.mmd, x, y, **options)
        for found, expected in zip(inside, outside, strict=True):
            assert found.dtype == dtype
            torch.testing.assert_close(found, expected, rtol=0, atol=CLOSE[dtype])


def test_default_dtype_of_the_process_does_not_matter(function):
    x, y = cloud(186, 6, dtype=torch.float32), cloud(187, 5, dtype=torch.float32)
    expected = function(x, y, eps=0.2)
    torch.set_default_dtype(torch.float64)
    try:
        found = function(x, y, eps=0.2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("rho", [None, 1.0])
def test_points_and_weights_may_move_after_a_solve(dtype, route, rho):
    """An optimiser steps in place: what is asked of a solution later still belongs to the points it was solved for."""
    x, y, a, b = cloud(400, 9, dtype=dtype), cloud(401, 8, dtype=dtype), weights(400, 9), weights(401, 8)
    a, b = a.to(dtype), b.to(dtype)
    kept = sinkdiv.solve(x, y, a, b, eps=0.2, rho=rho)
    moved = sinkdiv.solve(x, y, a, b, eps=0.2, rho=rho)
    expected = [*kept.bounds, kept.plan(), kept.sharp, kept.potentials_at(x), kept.barycentric_map()]
    probe = x.clone()
    for tensor in (x, y, a, b):
        tensor.mul_(3.0).add_(1.0)
    found = [*moved.bounds, moved.plan(), moved.sharp, moved.potentials_at(probe), moved.barycentric_map()]
    for have, want in zip(found, expected, strict=True):
        torch.testing.assert_close(have, want, rtol=0, atol=0)
