"""torch.func, and the other ways in which PyTorch runs a function: right, or refused by name; never a silent zero."""

import subprocess
import sys

import pytest
import torch
from torch.autograd import forward_ad

import sinkdiv
from problems import centred, cloud, direction, tight, weights

VALUES = ["entropic", "sharp"]
X, Y, A, B = cloud(730, 5), cloud(731, 4) + 0.2, weights(730, 5), weights(731, 4)
V, W = direction(732, X.shape), direction(733, X.shape)


@pytest.fixture(params=VALUES)
def value(request):
    return request.param


@pytest.fixture(params=[None, 0.5], ids=["balanced", "unbalanced"])
def rho(request):
    return request.param


@pytest.fixture(params=["transport", "divergence", "unrolled"])
def loss(request, value, rho):
    """A function of x."""
    options = {"eps": 0.2, "rho": rho, "value": value, **tight()}
    if request.param == "unrolled":
        options |= {"derivative": "unrolled", "solver": sinkdiv.Unrolled(iterations=3)}
    function = sinkdiv.sinkhorn_divergence if request.param == "divergence" else sinkdiv.transport_cost
    return lambda x: function(x, Y, A, B, **options)


def gradient(function, x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


def product(function, x, v):
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(function(leaf), leaf, create_graph=True)
    return torch.autograd.grad((grad * v).sum(), leaf)[0]


def close(found, expected, atol=1e-10):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_first_derivatives(loss):
    """grad, vjp with its pull called outside, jvp, jacrev, jacfwd are autograd's."""
    expected = gradient(loss, X)
    result, pull = torch.func.vjp(loss, X)
    close(result, loss(X))
    close(pull(torch.tensor(3.0, dtype=torch.float64))[0], 3 * expected)
    close(torch.func.grad(loss)(X), expected)
    result, tangent = torch.func.jvp(loss, (X,), (V,))
    close(result, loss(X))
    close(tangent, (expected * V).sum())
    close(torch.func.jacrev(loss)(X), expected)
    close(torch.func.jacfwd(loss)(X), expected)


def test_second_derivatives(loss):
    """hessian, and all the ways to nest one transform in another that PyTorch's own functions allow."""
    H = torch.autograd.functional.hessian(loss, X)
    HV = (H * V).sum((2, 3))
    close(product(loss, X, V), HV, 1e-9)
    close(torch.func.hessian(loss)(X), H, 1e-9)
    close(torch.func.jacrev(torch.func.jacrev(loss))(X), H, 1e-9)
    close(torch.func.jacrev(torch.func.jacfwd(loss))(X), H, 1e-9)
    close(torch.func.jvp(torch.func.grad(loss), (X,), (V,))[1], HV, 1e-9)
    close(torch.func.grad(lambda x: torch.func.jvp(loss, (x,), (V,))[1])(X), HV, 1e-9)
    one = torch.tensor(1.0, dtype=torch.float64)

    def pulled(x):
        return torch.func.vjp(loss, x)[1](one)[0]

    close(torch.func.vjp(pulled, X)[1](V)[0], HV, 1e-9)
    close(torch.func.grad(lambda x: (torch.func.grad(loss)(x) * V).sum())(X), HV, 1e-9)


def test_autograd_around_and_within_a_transform(loss):
    """A transform of a function that calls autograd's own backward pass, and backward through a transform."""
    leaf = X.clone().requires_grad_()
    (through,) = torch.autograd.grad((torch.func.grad(loss)(leaf) * V).sum(), leaf)
    close(through, product(loss, X, V), 1e-9)
    tangent = torch.func.jvp(loss, (leaf,), (V,))[1]
    close(torch.autograd.grad(tangent, leaf)[0], product(loss, X, V), 1e-9)


def test_third_derivative(value):
    def loss(x):
        return sinkdiv.sinkhorn_divergence(x, Y, A, B, eps=0.3, value=value, **tight())

    def by_transforms(x):
        return torch.func.grad(lambda x: (torch.func.jvp(torch.func.grad(loss), (x,), (V,))[1] * W).sum())(x)

    leaf = X.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    (once,) = torch.autograd.grad((grad * V).sum(), leaf, create_graph=True)
    (expected,) = torch.autograd.grad((once * W).sum(), leaf)
    close(by_transforms(X), expected, 1e-8)


@pytest.mark.parametrize("argument", ["y", "a", "b"])
def test_other_arguments(value, argument):
    """Weights along directions of no mass."""
    at = {"x": X, "y": Y, "a": A, "b": B}
    step = direction(734, Y.shape) if argument == "y" else centred(735, at[argument].shape)

    def loss(z):
        return sinkdiv.sinkhorn_divergence(**{**at, argument: z}, eps=0.2, value=value, **tight())

    expected = gradient(loss, at[argument])
    close((torch.func.grad(loss)(at[argument]) * step).sum(), (expected * step).sum())
    close(torch.func.jvp(loss, (at[argument],), (step,))[1], (expected * step).sum())
    form = (torch.func.jvp(torch.func.grad(loss), (at[argument],), (step,))[1] * step).sum()
    close(form, (product(loss, at[argument], step) * step).sum(), 1e-9)


QUANTITIES = {
    "f": lambda t: t.f,
    "plan": lambda t: t.plan(),
    "apply": lambda t: t.apply(Y),
    "marginals": lambda t: torch.cat(t.marginals()),
    "barycentric_map": lambda t: t.barycentric_map(),
    "potentials_at": lambda t: t.potentials_at(X + 1),
}


@pytest.mark.parametrize("name", QUANTITIES)
def test_jacobians_of_what_a_transport_offers(rho, name):
    """jacrev, jacfwd and jvp, against backward passes for one entry after the other."""

    def quantity(x):
        return QUANTITIES[name](sinkdiv.solve(x, Y, A, B, eps=0.3, rho=rho, **tight()))

    expected = torch.autograd.functional.jacobian(quantity, X)
    close(torch.func.jacrev(quantity)(X), expected, 1e-9)
    close(torch.func.jacfwd(quantity)(X), expected, 1e-9)
    close(torch.func.jvp(quantity, (X,), (V,))[1], (expected * V).sum((-2, -1)), 1e-9)


def test_jacobian_of_a_matrix_problem(rho):
    C = cloud(736, 4, 3)

    def sharp(C):
        return sinkdiv.solve_matrix(C, eps=0.3, rho=rho, **tight()).sharp

    close(torch.func.jacfwd(sharp)(C), gradient(sharp, C))
    H = torch.autograd.functional.hessian(sharp, C)
    close(torch.func.hessian(sharp)(C), H, 1e-9)


# Refusals.


def test_forward_within_forward_is_refused(loss):
    """PyTorch would lose tangents here; the message names what to use."""

    def once(x):
        return torch.func.jvp(loss, (x,), (V,))[1]

    with pytest.raises(NotImplementedError, match=r"torch\.func\.grad"):
        torch.func.jvp(once, (X,), (W,))
    with pytest.raises(NotImplementedError, match=r"torch\.func\.grad"):
        torch.func.jacfwd(torch.func.jacfwd(loss))(X)


@pytest.mark.parametrize("argument", ["x", "y", "a", "b"])
def test_vmap_over_samples_is_refused(value, argument):
    """Also of a gradient, and also where what is mapped over is another argument than the first."""
    at = {"x": X, "y": Y, "a": A, "b": B}
    several = torch.stack([at[argument], at[argument].flip(0)])

    def loss(z, **how):
        return sinkdiv.sinkhorn_divergence(**{**at, argument: z}, eps=0.2, value=value, **how)

    for function in (
        loss,
        torch.func.grad(loss),
        lambda z: loss(z, derivative="unrolled", solver=sinkdiv.Unrolled(iterations=2)),
        lambda z: sinkdiv.solve(**{**at, argument: z}, eps=0.2).plan(),
        lambda z: sinkdiv.solve_divergence(**{**at, argument: z}, eps=0.2).sharp,
    ):
        with pytest.raises(NotImplementedError, match="batch"):
            torch.vmap(function)(several)


def test_vmap_over_what_is_outside_the_samples_is_refused_or_right():
    """An operand, a cost matrix, a parameter of a learned cost."""
    t = sinkdiv.solve(X, Y, A, B, eps=0.2)
    several = torch.stack([Y, Y.flip(0), -Y])
    for function, inputs, looped in (
        (t.apply, several, lambda v: t.apply(v)),
        (lambda C: sinkdiv.solve_matrix(C, eps=0.2).value, torch.stack([torch.cdist(X, Y), torch.cdist(X, -Y)]), None),
        (
            lambda s: sinkdiv.transport_cost(X, Y, cost=lambda x, y: s * torch.cdist(x, y), eps=0.2),
            torch.tensor([1.0, 2.0], dtype=torch.float64),
            None,
        ),
    ):
        try:
            found = torch.vmap(function)(inputs)
        except NotImplementedError:
            continue
        close(found, torch.stack([(looped or function)(one) for one in inputs]))


def test_batched_backward_is_refused_or_right():
    """`is_grads_batched`, which vmaps over cotangents."""
    x = X.clone().requires_grad_()
    loss = sinkdiv.sinkhorn_divergence(x, Y, A, B, eps=0.2, value="sharp")
    cotangents = torch.tensor([1.0, -2.0], dtype=torch.float64)
    (expected,) = torch.autograd.grad(loss, x, retain_graph=True)
    try:
        (found,) = torch.autograd.grad(loss, x, cotangents, is_grads_batched=True)
    except NotImplementedError:
        return
    close(found, cotangents[:, None, None] * expected)


@pytest.mark.parametrize("argument", [0, 1, 2, 3], ids=["x", "y", "a", "b"])
@pytest.mark.parametrize(
    "how", [{}, {"derivative": "unrolled", "solver": sinkdiv.Unrolled(iterations=2)}], ids=["exact", "unrolled"]
)
def test_dual_numbers_are_refused(value, argument, how):
    """`torch.autograd.forward_ad` without torch.func, whose levels PyTorch cannot nest."""
    inputs = [X, Y, A, B]
    step = direction(737, inputs[argument].shape)
    with forward_ad.dual_level():
        inputs[argument] = forward_ad.make_dual(inputs[argument], step)
        with pytest.raises(NotImplementedError, match=r"torch\.func\.jvp"):
            sinkdiv.transport_cost(*inputs, eps=0.2, value=value, **how)


def test_linearize_is_refused(value):
    """It traces dual tensors, which a solve does not allow."""

    def loss(x):
        return sinkdiv.sinkhorn_divergence(x, Y, A, B, eps=0.2, value=value)

    with pytest.raises(NotImplementedError, match=r"torch\.func\.jvp"):
        torch.func.linearize(loss, X)


# Modes.


def everything(x):
    """What can be asked of solved problems, as one list."""
    d = sinkdiv.solve_divergence(x, Y, A, B, eps=0.2)
    t = d.ab
    of_transport = [t.value, t.sharp, t.f, t.g, t.plan(), t.apply(Y), t.apply_transpose(x), t.potentials_at(x)]
    unrolled = sinkdiv.transport_cost(x, Y, eps=0.2, derivative="unrolled", solver=sinkdiv.Unrolled(iterations=2))
    return [d.value, d.sharp, *of_transport, *t.marginals(), t.barycentric_map(), unrolled]


def test_without_gradients_nothing_requires_one():
    x = X.clone().requires_grad_()
    expected = everything(x)
    assert all(result.requires_grad for result in expected)
    with torch.no_grad():
        found = everything(x)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        found += everything(X.clone())
    found += everything(X)
    for result, want in zip(found, 3 * expected, strict=True):
        assert not result.requires_grad
        close(result, want.detach(), 1e-12)


def test_transforms_do_not_see_an_outer_no_grad(value):
    """As PyTorch's documentation promises of torch.func.grad; a decision by the grad mode would lose second orders."""

    def loss(x):
        return sinkdiv.transport_cost(x, Y, A, B, eps=0.2, value=value, **tight())

    transforms = [
        torch.func.grad(loss),
        torch.func.jacfwd(loss),
        torch.func.hessian(loss),
        torch.func.jacrev(torch.func.jacrev(loss)),
        lambda x: torch.func.jvp(torch.func.grad(loss), (x,), (V,))[1],
        lambda x: torch.func.grad(lambda x: (torch.func.grad(loss)(x) * V).sum())(x),
    ]
    for transform in transforms:
        expected = transform(X)
        with torch.no_grad():
            close(transform(X), expected, 1e-9)


def test_grad_mode_is_left_as_it_was_by_every_derivative():
    for enabled in (True, False):
        x = X.clone().requires_grad_()
        loss = sinkdiv.sinkhorn_divergence(x, Y, A, B, eps=0.2, value="sharp")
        (grad,) = torch.autograd.grad(loss, x, create_graph=True)
        total = grad.square().sum()
        with torch.set_grad_enabled(enabled):
            everything(x)
            torch.autograd.grad(total, x)
            torch.func.grad(lambda x: sinkdiv.transport_cost(x, Y, eps=0.2, value="sharp"))(X)
            assert torch.is_grad_enabled() == enabled


def test_compiled_programs(value):
    """torch.compile of a function around the loss: same value, gradient and Hessian-vector product."""

    def program(x):
        return 2 * sinkdiv.sinkhorn_divergence(x, Y, A, B, eps=0.2, value=value, **tight()).square() + x.sum()

    compiled = torch.compile(program, backend="eager")
    close(compiled(X), program(X))
    close(gradient(compiled, X), gradient(program, X))
    close(product(compiled, X, V), product(program, X, V), 1e-9)


def test_compilers_are_not_loaded_by_import_or_by_a_solve():
    """Neither PyTorch's nor Triton: loading them takes longer than a solve. What torch itself loads does not count."""
    program = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "import sinkdiv\n"
        "x, y = torch.rand(5, 2, requires_grad=True), torch.rand(4, 2)\n"
        "sinkdiv.sinkhorn_divergence(x, y, blur=0.5, value='sharp').backward()\n"
        "loaded = {'torch._dynamo', 'triton'} & (set(sys.modules) - before)\n"
        "sys.exit(f'{loaded} were loaded' if loaded else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_compiled_program_that_is_called_again():
    """More often, and with samples of more sizes, than PyTorch compiles one function for."""

    def gradients(function, x, y):
        leaf = x.clone().requires_grad_()
        loss = function(leaf, y)
        (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
        return loss.detach(), grad.detach(), torch.autograd.grad(grad.square().sum(), leaf)[0]

    def program(x, y):
        return 2 * sinkdiv.sinkhorn_divergence(x, y, eps=0.2, value="sharp").square().sum() + x.sum()

    torch._dynamo.reset()
    compiled = torch.compile(program, backend="eager")
    for k in range(12):
        batch = (None, 2, 3)[k % 3]
        x, y = cloud(740 + k, 4 + k, 1 + k % 4, batch=batch), cloud(760 + k, 3 + k % 5, 1 + k % 4, batch=batch)
        for found, expected in zip(gradients(compiled, x, y), gradients(program, x, y), strict=True):
            close(found, expected, 1e-12)
