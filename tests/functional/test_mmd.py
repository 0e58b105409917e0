"""Kernel losses against their double sums in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sinkdiv
from problems import CLOSE, array, centred, cloud, costs, direction, slope, weights

KERNELS = [("energy", None), ("gaussian", 0.7), ("laplacian", 0.7)]


@pytest.fixture(params=KERNELS, ids=[name for name, _ in KERNELS])
def kernel(request):
    name, blur = request.param
    return {"kernel": name, "blur": blur}


def double_sum(x, y, a, b, kernel, blur):
    """½ Σ (α−β)(α−β) k."""
    points = torch.cat([x, y])
    distances = costs(points, points, "euclidean")
    k = {
        "energy": lambda r: -r,
        "gaussian": lambda r: np.exp(-(r**2) / (2 * blur**2)),
        "laplacian": lambda r: np.exp(-r / blur),
    }[kernel](distances)
    signed = np.concatenate([array(a), -array(b)])
    return signed @ k @ signed / 2


def problem(seed, dtype, mass=1.0):
    x, y = cloud(seed, 9, 3, dtype=dtype), cloud(seed + 1, 7, 3, dtype=dtype) + 0.2
    b = weights(seed, 6, mass=mass, dtype=dtype)
    return x, y, weights(seed, 9, dtype=dtype), torch.cat([b, b.new_zeros(1)])


@given(seed=st.integers(0, 999))
def test_value_is_half_the_squared_norm_of_the_difference(dtype, route, kernel, seed):
    inputs = problem(seed, dtype, mass=1.0 if kernel["kernel"] == "energy" else 1.7)
    found = float(sinkdiv.mmd(*inputs, **kernel))
    assert found == pytest.approx(double_sum(*inputs, **kernel), abs=CLOSE[dtype])
    assert found >= 0


def test_energy_distance_in_one_dimension_is_the_distance_of_distribution_functions(route):
    """½(2E|x−y| − E|x−x'| − E|y−y'|) = ∫(F−G)² (Székely, Rizzo 2013)."""
    x, y = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[0.5], [3.0]]).double()
    # F−G is ½ on (0, ½), 0 on (½, 1) and ½ on (1, 3).
    assert float(sinkdiv.mmd(x, y)) == pytest.approx(0.25 * 0.5 + 0.25 * 2.0, abs=1e-12)


def test_equal_measures_have_distance_zero(dtype, route, kernel):
    x, _, a, _ = problem(3, dtype)
    for y, b in ((x, a), (x.clone(), a.clone()), (x.flip(0), a.flip(0))):
        assert float(sinkdiv.mmd(x, y, a, b, **kernel)) == pytest.approx(0, abs=4 * torch.finfo(dtype).eps)


def test_derivatives(route, kernel):
    """Against central differences of fourth order, for points and, along directions of mass zero, weights."""
    tensors = problem(4, torch.float64)
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    grads = torch.autograd.grad(sinkdiv.mmd(*leaves, **kernel), leaves)
    steps = [direction(4, t.shape) if t.ndim == 2 else centred(5, t.shape) for t in tensors]
    steps[3][-1] = 0
    steps[3] -= steps[3].mean() * (steps[3] != 0) * 7 / 6
    expected = slope(lambda t: sinkdiv.mmd(*(p + t * s for p, s in zip(tensors, steps, strict=True)), **kernel))
    found = sum((grad * step).sum().item() for grad, step in zip(grads, steps, strict=True))
    assert found == pytest.approx(expected, abs=1e-8)


def test_gradient_at_coincident_points_is_finite(dtype, route, kernel):
    x = cloud(5, 6, dtype=dtype)
    x[1] = x[0]
    x.requires_grad_()
    (grad,) = torch.autograd.grad(sinkdiv.mmd(x, x.detach().clone(), **kernel), x)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=CLOSE[dtype])


def test_a_batch_equals_a_loop(dtype, route, kernel):
    x, y = cloud(6, 8, batch=3, dtype=dtype), cloud(7, 5, batch=3, dtype=dtype)
    a, b = weights(6, 8, batch=3, dtype=dtype), weights(7, 5, batch=3, dtype=dtype)

    def value_and_gradients(function):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, y, a, b)]
        values = function(*leaves)
        return values, *torch.autograd.grad((values * torch.tensor([1.0, 2.0, -1.0])).sum(), leaves)

    batch = value_and_gradients(lambda *batch: sinkdiv.mmd(*batch, **kernel))
    loop = value_and_gradients(
        lambda *batch: torch.stack([sinkdiv.mmd(*sample, **kernel) for sample in zip(*batch, strict=True)])
    )
    for found, expected in zip(batch, loop, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=CLOSE[dtype])


def test_far_from_the_origin_in_float32(route, kernel):
    """Distances are unchanged by a common translation, of 1e4 here; the points are exact in float32."""
    x, y, a, b = problem(8, torch.float32)
    x, y = (points.mul(64).round() / 64 for points in (x, y))
    near, far = sinkdiv.mmd(x, y, a, b, **kernel), sinkdiv.mmd(x + 1e4, y + 1e4, a, b, **kernel)
    torch.testing.assert_close(near, far, rtol=0, atol=1e-5)


def test_gradient_is_the_same_tiled(kernel, request):
    """Rebuilding the blocks' graphs changes nothing."""
    x, y, a, b = problem(9, torch.float64)
    x.requires_grad_()
    (dense,) = torch.autograd.grad(sinkdiv.mmd(x, y, a, b, **kernel), x)
    request.getfixturevalue("tiled")
    (tiled,) = torch.autograd.grad(sinkdiv.mmd(x, y, a, b, **kernel), x)
    torch.testing.assert_close(tiled, dense, rtol=0, atol=1e-13)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32_and_cast_back(half, kernel):
    x, y, *_ = problem(10, half)
    x.requires_grad_()
    found = sinkdiv.mmd(x, y, **kernel)
    expected = sinkdiv.mmd(x.detach().float(), y.float(), **kernel)
    assert found.dtype == half
    torch.testing.assert_close(found.float(), expected, rtol=torch.finfo(half).eps, atol=0)
    found.backward()
    assert x.grad.dtype == half
