"""Whole solves by the Triton kernels, against the same solves by those of a CPU in float64.

Where there is no GPU, tensors on the CPU take a GPU's way, and the kernels are interpreted.
"""

import math

import pytest
import torch

import sinkdiv
from problems import cloud, costs, weights
from sinkdiv.geometry import cloud as cloud_geometry
from sinkdiv.geometry import whole as whole_module
from sinkdiv.kernels import native, reference, triton

pytestmark = [
    pytest.mark.skipif(not triton.available, reason="Triton is not installed"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

EXACT = {"tol": 1e-11, "solver": sinkdiv.Auto(max_passes=5000)}

N, M = 12, 9


@pytest.fixture
def on_gpu(monkeypatch):
    """Runs a function pass by pass on a GPU's kernels, and on no others."""

    def run(function, *, whole=False):
        with monkeypatch.context() as patch:
            if DEVICE == "cpu":
                patch.setattr(triton, "serves", lambda tensor: tensor.dtype in triton.DTYPES)
                patch.setattr(native, "serves", lambda tensor: False)
            patch.setattr(whole_module, "GPU_SIDE", 256 if whole else 0)
            for name in ("softmin", "marginals", "weighted_marginals", "tangent_marginals", "plan_product", "plan_cost",
                         "plan_gradient", "weighted_gradient", "gradient_tangent", "corrected_primal"):  # fmt: skip
                patch.setattr(reference.PointReductions, name, None)
            return function(DEVICE)

    return run


@pytest.fixture(params=["kept", "streamed"])
def storage(request, monkeypatch):
    """Costs are formed once and kept, or formed anew in each pass."""
    monkeypatch.setattr(cloud_geometry, "KEPT_ENTRIES", 2**22 if request.param == "kept" else 0)


def assert_same(found, expected, *, atol, rtol=0.0):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(
            value.detach().cpu().double(), expected[name].detach().cpu().double(), rtol=rtol, atol=atol,
            msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


def samples(d, device, dtype=torch.float64, batch=None):
    """Points of both sides and their weights."""
    x, y = cloud(950, N, d, batch=batch), cloud(951, M, d, batch=batch) + 0.2
    a, b = weights(950, N, batch=batch), weights(951, M, batch=batch)
    return tuple(tensor.to(device, dtype) for tensor in (x, y, a, b))


def transport(device, d=3, dtype=torch.float64, batch=None, **options):
    """What a transport offers."""
    x, y, a, b = samples(d, device, dtype, batch)
    t = sinkdiv.solve(x, y, a, b, **options)
    assert torch.as_tensor(t.converged).all()
    v = torch.ones(M, 2, device=device, dtype=dtype) if batch is None else torch.ones(batch, M, 2, device=device)
    rows, columns = t.marginals()
    return {
        "value": t.value, "sharp": t.sharp, "f + g": t.f[..., :, None] + t.g[..., None, :],
        "potentials at": t.potentials_at(x + 0.1) + t.potentials_at(y - 0.1, side=1).mean(-1, keepdim=True),
        "apply": t.apply(v.to(dtype)), "apply transpose": t.apply_transpose(x), "map": t.barycentric_map(),
        "rows": rows, "columns": columns, "plan": t.plan(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("d", "options"),
    [
        (3, {"blur": 0.4}),
        (2, {"blur": 0.3, "cost": "euclidean", "reach": 0.8}),
        (10, {"eps": 1.0, "cost": sinkdiv.PowerCost(3)}),
    ],
    ids=["balanced", "unbalanced", "power"],
)
def test_transports(on_gpu, storage, d, options):
    """Values, potentials, extensions and the plan as an operator, within what a marginal error of 10⁻¹¹ leaves."""
    expected = transport("cpu", d, **options, **EXACT)
    assert_same(on_gpu(lambda device: transport(device, d, **options, **EXACT)), expected, atol=1e-9)


def test_a_batch(on_gpu):
    """Several problems in each launch; whole solves too, where problems are small."""
    options = {"blur": 0.4, "batch": 3, **EXACT}
    expected = transport("cpu", **options)
    assert_same(on_gpu(lambda device: transport(device, **options)), expected, atol=1e-9)
    assert_same(on_gpu(lambda device: transport(device, **options), whole=True), expected, atol=1e-9)


@pytest.mark.parametrize(("d", "precision"), [(3, "high"), (20, "high"), (20, "tf32")])
def test_float32(on_gpu, monkeypatch, d, precision):
    """Costs of size d/6 carry 2⁻²³ of it, or 2⁻¹¹ where points are rounded to 11 bits; a marginal error of 10⁻⁵ may
    change potentials by as much, relative to the costs, and values by its square."""
    monkeypatch.setattr(cloud_geometry, "KEPT_ENTRIES", 0)
    options = {"eps": 0.1 * d}
    expected = transport("cpu", d, **options, **EXACT)
    solver = sinkdiv.Auto(precision=precision)
    found = on_gpu(lambda device: transport(device, d, torch.float32, tol=1e-5, solver=solver, **options))
    moved = 2.0**-11 * d if precision == "tf32" else 0.0
    assert_same({"value": found["value"]}, {"value": expected["value"]}, atol=1e-6 * d + moved)
    assert_same(found, expected, atol=1e-4 * d + 2 * moved)


@pytest.mark.parametrize("d", [3, 20])
def test_bounds_hold(on_gpu, d):
    """They enclose the exact value, and meet at it."""
    exact = float(transport("cpu", d, eps=0.1 * d, **EXACT)["value"])
    for dtype, width in ((torch.float64, 1e-6), (torch.float32, 1e-3 * d)):
        x, y, a, b = samples(d, "cpu", dtype)
        lower, upper = on_gpu(
            lambda device, given=(x, y, a, b): (
                sinkdiv.solve(*(z.to(device) for z in given), eps=0.1 * d, tol=1e-4).bounds
            )
        )
        rounding = 1e-5 * d * (dtype == torch.float32)  # the samples, too, are rounded
        assert float(lower) - rounding <= exact <= float(upper) + rounding
        assert 0 <= float(upper - lower) <= width + 1e-3


def divergence(device, d, value, dtype=torch.float64, **options):
    """A divergence's value, its gradient in points and weights, and the product of its Hessian with a direction."""
    x, y, a, b = (z.requires_grad_() for z in samples(d, device, dtype))
    s = sinkdiv.sinkhorn_divergence(x, y, a, b, value=value, **options)
    gradients = torch.autograd.grad(s, (x, y, a, b), create_graph=True)
    direction = torch.sin(torch.arange(x.numel(), dtype=dtype, device=device)).reshape(x.shape)
    products = torch.autograd.grad((gradients[0] * direction).sum(), (x, y))
    names = ("x", "y", "a", "b")
    return {"value": s, **dict(zip(names, gradients, strict=True)), **dict(zip(("Hx", "Hy"), products, strict=True))}


@pytest.mark.parametrize("value", ["entropic", "sharp"])
@pytest.mark.parametrize(
    ("d", "options"),
    [
        (3, {"blur": 0.4}),
        (10, {"eps": 0.5, "cost": "euclidean", "rho": 1.0}),
    ],
    ids=["balanced", "unbalanced"],
)
def test_divergences(on_gpu, value, d, options):
    """Gradients are off by as much as potentials are, 10⁻¹¹; Hessians also by the solve of a linear system."""
    expected = divergence("cpu", d, value, **options, **EXACT)
    assert_same(on_gpu(lambda device: divergence(device, d, value, **options, **EXACT)), expected, atol=1e-7)


def matrix_transport(device, C, a, b, **options):
    t = sinkdiv.solve_matrix(C.to(device), a.to(device), b.to(device), **options)
    assert t.converged
    lower, upper = t.bounds
    return {"value": t.value, "f + g": t.f[:, None] + t.g, "plan": t.plan(), "lower": lower, "upper": upper}


def test_matrices(on_gpu):
    """As they are, and transposed without a copy."""
    x, y, a, b = samples(2, "cpu")
    C = torch.tensor(costs(x, y))
    expected = matrix_transport("cpu", C, a, b, eps=0.2, **EXACT)
    for given in (C, C.T.contiguous().T):
        found = on_gpu(lambda device, given=given: matrix_transport(device, given, a, b, eps=0.2, **EXACT))
        assert_same(found, expected, atol=1e-9)


def test_forbidden_pairs(on_gpu):
    """Costs of +∞ are left to the reference, whichever the device."""
    x, y, a, b = samples(2, "cpu")
    C = torch.tensor(costs(x, y))
    C[::3, ::4] = math.inf
    expected = matrix_transport("cpu", C, a, b, eps=0.2, **EXACT)
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            patch.setattr(triton, "serves", lambda tensor: tensor.dtype in triton.DTYPES)
            patch.setattr(native, "serves", lambda tensor: False)
        assert_same(matrix_transport(DEVICE, C, a, b, eps=0.2, **EXACT), expected, atol=1e-9)
