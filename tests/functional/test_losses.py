"""The functions as modules: in training loops, in files, and under the compiler."""

import copy
import gc
import io
import pickle
import subprocess
import sys
import weakref

import pytest
import torch

import sinkdiv
from problems import cloud, weights
from sinkdiv import Transport

MODULES = [
    (sinkdiv.SinkhornDivergence, sinkdiv.sinkhorn_divergence, {"blur": 0.3}),
    (sinkdiv.SinkhornDivergence, sinkdiv.sinkhorn_divergence, {"eps": 0.2, "cost": "euclidean", "reach": (0.5, 1.0)}),
    (sinkdiv.SinkhornDivergence, sinkdiv.sinkhorn_divergence, {"eps": 0.2, "value": "sharp", "tol": 1e-5}),
    (sinkdiv.TransportCost, sinkdiv.transport_cost, {"blur": 0.3, "rho": 1.0, "solver": sinkdiv.Auto(max_passes=500)}),
    (sinkdiv.TransportCost, sinkdiv.transport_cost, {"eps": 0.3, "derivative": "envelope"}),
    (sinkdiv.MMD, sinkdiv.mmd, {}),
    (sinkdiv.MMD, sinkdiv.mmd, {"kernel": "gaussian", "blur": 0.5}),
]


@pytest.fixture(params=MODULES, ids=lambda case: f"{case[0].__name__} {case[2]}")
def case(request):
    module, function, options = request.param
    return module(**options), function, options


def inputs(dtype=torch.float64):
    return (
        cloud(200, 8, dtype=dtype),
        cloud(201, 7, dtype=dtype),
        weights(200, 8, dtype=dtype),
        weights(201, 7, dtype=dtype),
    )


def test_a_module_is_its_function(case, dtype):
    """With weights and without, single and in a batch."""
    module, function, options = case
    x, y, a, b = inputs(dtype)
    assert torch.equal(module(x, y, a, b), function(x, y, a, b, **options))
    assert torch.equal(module(x, y), function(x, y, **options))
    batch = torch.stack([x, x + 1]), torch.stack([y, y])
    assert torch.equal(module(*batch), function(*batch, **options))


def test_modules_pickle_and_copy(case):
    """For worker processes and checkpoints; the copy computes the same."""
    module, _, _ = case
    expected = module(*inputs())
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    copies = [pickle.loads(pickle.dumps(module)), copy.deepcopy(module), torch.load(file, weights_only=False)]
    for twin in copies:
        assert torch.equal(twin(*inputs()), expected)
        assert repr(twin) == repr(module)


def test_modules_show_their_options(case):
    module, _, options = case
    for name, option in options.items():
        assert f"{name}={option!r}" in repr(module)


def test_modules_have_no_state(case):
    module, _, _ = case
    assert not module.state_dict()
    assert not list(module.parameters())
    assert torch.equal(module.double().eval()(*inputs()), module(*inputs()))


def test_descent_brings_the_samples_together():
    """Gradient flow of the debiased loss with the squared cost: y ← y − ½·m·∇ reaches the other sample's mean exactly.

    Σ_j ∂S_ε/∂y_j = 2(m_β−m_α) (mathematics, oracle 2), so the mean moves by −(m_β−m_α) in one step of m/2.
    """
    x, y = cloud(202, 9), (cloud(203, 7) + 2).requires_grad_()
    criterion = sinkdiv.SinkhornDivergence(eps=0.1, tol=1e-9, solver=sinkdiv.Auto(max_passes=20_000))
    before = criterion(x, y)
    (grad,) = torch.autograd.grad(before, y)
    y = y.detach() - 7 / 2 * grad
    torch.testing.assert_close(y.mean(0), x.mean(0), rtol=0, atol=1e-7)
    assert criterion(x, y) < 0.1 * before


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: sinkdiv.sinkhorn_divergence(x, y, eps=0.2),
        sinkdiv.TransportCost(eps=0.2, cost="euclidean", rho=1.0),
        lambda x, y: sinkdiv.mmd(x, y, kernel="energy"),
    ],
    ids=["divergence", "module", "mmd"],
)
def test_inside_a_compiled_function(loss):
    """Value and gradient are those outside; graph breaks are allowed."""
    torch._dynamo.reset()

    def step(x, y):
        return 2 * loss(x.tanh(), y) + x.square().sum()

    x, y = cloud(204, 8), cloud(205, 7)

    def value_and_gradient(function):
        leaf = x.clone().requires_grad_()
        value = function(leaf, y)
        return value.detach(), *torch.autograd.grad(value, leaf)

    compiled = torch.compile(step, backend="eager")
    for found, expected in zip(value_and_gradient(compiled), value_and_gradient(step), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_importing_the_core_imports_no_extra():
    """`import sinkdiv` needs torch and numpy only (design, the rooms)."""
    code = (
        "import sys, torch, numpy; before = set(sys.modules); import sinkdiv; "
        "extras = {'lightning', 'matplotlib', 'sklearn', 'scipy', 'triton', 'typer', 'yaml', 'torchmetrics', 'PIL'}; "
        "print(sorted(extras & (set(sys.modules) - before)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# Warm starts.


def moving(seed, step, dtype):
    """The first of two clouds moves a little at each step."""
    return cloud(seed, 60, 3, dtype=dtype) + 0.01 * step, cloud(seed + 1, 50, 3, dtype=dtype) + 0.2


@pytest.mark.parametrize("module", [sinkdiv.SinkhornDivergence, sinkdiv.TransportCost])
@pytest.mark.parametrize("options", [{}, {"reach": 1.0}, {"cost": "euclidean"}])
def test_warm_start_changes_passes_not_answers(module, options, dtype, route):
    """The tolerance holds at each step; values agree to second order in it, gradients to first."""
    warm, cold = module(blur=0.1, solver=sinkdiv.Auto(warm_start=True), **options), module(blur=0.1, **options)
    passes = []
    for step in range(4):
        x, y = moving(160, step, dtype)
        x.requires_grad_()
        values = [criterion(x, y) for criterion in (warm, cold)]
        grads = [torch.autograd.grad(value, x)[0] for value in values]
        torch.testing.assert_close(*values, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(*grads, rtol=0, atol=1e-2 * float(grads[1].abs().max()))
        last = Transport(*warm._earlier)
        assert last.converged is True
        passes.append(last.passes)
    assert max(passes[1:]) < passes[0]


def test_warm_start_takes_fresh_batches_of_any_size(route):
    """The softmin carries potentials over to points that were not there; what does not fit begins anew."""
    criterion = sinkdiv.SinkhornDivergence(blur=0.2, solver=sinkdiv.Auto(warm_start=True))
    shapes = [((40, 3), (30, 3)), ((20, 3), (50, 3)), ((20, 2), (50, 2)), ((2, 9, 2), (2, 8, 2)), ((9, 2), (8, 2))]
    for seed, (n, m) in enumerate(shapes):
        generator = torch.Generator().manual_seed(seed)
        x, y = torch.rand(n, generator=generator), torch.rand(m, generator=generator)
        torch.testing.assert_close(criterion(x, y), sinkdiv.sinkhorn_divergence(x, y, blur=0.2), rtol=1e-4, atol=1e-6)
    x, y = x.double(), y.double()
    torch.testing.assert_close(criterion(x, y), sinkdiv.sinkhorn_divergence(x, y, blur=0.2), rtol=1e-4, atol=1e-6)


def test_warm_start_holds_no_graph():
    """What is kept for the next step must not keep the last step's activations alive."""
    criterion = sinkdiv.SinkhornDivergence(blur=0.2, solver=sinkdiv.Auto(warm_start=True))
    parameter = torch.ones((), requires_grad=True)
    x = cloud(163, 9) * parameter
    watched = weakref.ref(x)
    criterion(x, cloud(164, 8)).backward()
    del x
    gc.collect()
    assert watched() is None


def test_warm_start_survives_a_far_jump(dtype, route):
    """A start that is worthless costs passes, not the answer."""
    criterion = sinkdiv.SinkhornDivergence(blur=0.1, solver=sinkdiv.Auto(warm_start=True))
    y = cloud(165, 30, dtype=dtype)
    criterion(cloud(166, 40, dtype=dtype), y)
    far = cloud(167, 40, dtype=dtype) * 3 - 5
    torch.testing.assert_close(criterion(far, y), sinkdiv.sinkhorn_divergence(far, y, blur=0.1), rtol=1e-4, atol=0)
    assert Transport(*criterion._earlier).converged is True


def test_copies_of_a_warm_module_begin_anew():
    criterion = sinkdiv.SinkhornDivergence(blur=0.2, solver=sinkdiv.Auto(warm_start=True))
    criterion(cloud(168, 9), cloud(169, 8))
    for copied in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert copied._earlier == ()
        assert copied(cloud(168, 9), cloud(169, 8)) == sinkdiv.sinkhorn_divergence(
            cloud(168, 9), cloud(169, 8), blur=0.2
        )
    assert "warm_start=True" in repr(criterion)
    with pytest.raises(ValueError, match="warm_start"):
        sinkdiv.SinkhornDivergence(blur=0.2, solver=sinkdiv.Auto(warm_start="yes"))
