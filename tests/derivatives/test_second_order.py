"""Second and higher derivatives: of every public function by gradcheck, of divergences by Hessian-vector products."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import sinkdiv
from allocations import Largest
from problems import array, centred, cloud, direction, slope, tight, weights
from sinkdiv.geometry import cloud as cloud_geometry
from sinkdiv.geometry import whole
from sinkdiv.kernels import reference
from sinkdiv.solvers import hessian

COSTS = ["sqeuclidean", "euclidean"]
RHOS = {"balanced": None, "unbalanced": 0.5, "unbalanced pair": (0.3, 2.0)}
VALUES = ["entropic", "sharp"]
EXACT = {"tol": 1e-12, "solver": sinkdiv.Auto(max_passes=50_000)}
#: Steps of 1e-4 leave about 1e-8 from the solver (1e-12 / 1e-4) and from the third derivatives.
CHECK = {"eps": 1e-4, "atol": 1e-6, "rtol": 1e-4}


def losses(**options):
    """Public functions of (x, y, a, b)."""
    yield "transport entropic", lambda *z: sinkdiv.transport_cost(*z, **options)
    yield "transport sharp", lambda *z: sinkdiv.transport_cost(*z, value="sharp", **options)
    yield "divergence entropic", lambda *z: sinkdiv.sinkhorn_divergence(*z, **options)
    yield "divergence sharp", lambda *z: sinkdiv.sinkhorn_divergence(*z, value="sharp", **options)
    unrolled = {**options, "derivative": "unrolled", "solver": sinkdiv.Unrolled(iterations=3)}
    yield "unrolled entropic", lambda *z: sinkdiv.transport_cost(*z, **unrolled)
    yield "unrolled sharp", lambda *z: sinkdiv.transport_cost(*z, value="sharp", **unrolled)
    yield "module entropic", sinkdiv.TransportCost(**options)
    yield "module sharp", sinkdiv.SinkhornDivergence(value="sharp", **options)
    yield "module unrolled", sinkdiv.SinkhornDivergence(**unrolled)
    yield "solved value", lambda *z: sinkdiv.solve(*z, **options).value
    yield "solved sharp", lambda *z: sinkdiv.solve(*z, **options).sharp
    yield "solved divergence", lambda *z: sinkdiv.solve_divergence(*z, **options).value
    yield "solved sharp divergence", lambda *z: sinkdiv.solve_divergence(*z, **options).sharp


def quantities(**options):
    """What a transport offers, as functions of (x, y, a, b) and of an operand."""
    yield "f", lambda *z: sinkdiv.solve(*z[:4], **options).f
    yield "g", lambda *z: sinkdiv.solve(*z[:4], **options).g
    yield "plan", lambda *z: sinkdiv.solve(*z[:4], **options).plan()
    yield "apply", lambda *z: sinkdiv.solve(*z[:4], **options).apply(z[4][:3])
    yield "apply to a vector", lambda *z: sinkdiv.solve(*z[:4], **options).apply(z[4][:3, 0])
    yield "apply_transpose", lambda *z: sinkdiv.solve(*z[:4], **options).apply_transpose(z[4])
    yield "potentials_at", lambda *z: sinkdiv.solve(*z[:4], **options).potentials_at(z[4])
    yield "potentials_at, side 1", lambda *z: sinkdiv.solve(*z[:4], **options).potentials_at(z[4], side=1)
    yield "marginals", lambda *z: sinkdiv.solve(*z[:4], **options).marginals()
    yield "barycentric_map", lambda *z: sinkdiv.solve(*z[:4], **options).barycentric_map()


def matrix_quantities(**options):
    """The same of a cost matrix: functions of (C, a, b)."""
    yield "value", lambda *z: sinkdiv.solve_matrix(*z, **options).value
    yield "sharp", lambda *z: sinkdiv.solve_matrix(*z, **options).sharp
    yield "f", lambda *z: sinkdiv.solve_matrix(*z, **options).f
    yield "plan", lambda *z: sinkdiv.solve_matrix(*z, **options).plan()
    yield "apply", lambda *z: sinkdiv.solve_matrix(*z, **options).apply(z[0][0])


LOSSES = [name for name, _ in losses(eps=1.0)]
QUANTITIES = [name for name, _ in quantities(eps=1.0)]
MATRIX_QUANTITIES = [name for name, _ in matrix_quantities(eps=1.0)]


def leaves(*tensors):
    return [tensor.clone().requires_grad_() for tensor in tensors]


def small_problem(*more):
    """Points and logarithms of weights, n=4, m=3."""
    return leaves(cloud(1, 4), cloud(2, 3) + 0.2, weights(3, 4).log(), weights(4, 3).log(), *more)


def of_logarithms(function, rho, first=2):
    """function of logarithms of weights, so that weights stay positive, and of mass 1 where the marginals are hard."""

    def of_logs(*z):
        a, b = ((w.softmax(0) if rho is None else w.exp()) for w in z[first : first + 2])
        return function(*z[:first], a, b, *z[first + 2 :])

    return of_logs


#: The functions under each kind of marginals, and the modules and solutions that pass them on.
LOSS_CASES = [
    *((name, rho, "sqeuclidean") for name in LOSSES[:6] for rho in ("balanced", "unbalanced pair")),
    *((name, "unbalanced", "euclidean") for name in (*LOSSES[:4], *LOSSES[6:])),
]


@pytest.mark.parametrize(("name", "marginals", "cost"), LOSS_CASES)
def test_losses_by_gradcheck(name, marginals, cost):
    rho = RHOS[marginals]
    function = of_logarithms(dict(losses(eps=0.5, rho=rho, cost=cost, **EXACT))[name], rho)
    assert gradcheck(function, small_problem(), **CHECK)
    assert gradgradcheck(function, small_problem(), fast_mode=True, **CHECK)


@pytest.mark.parametrize("rho", [None, (0.3, 2.0)])
@pytest.mark.parametrize("name", QUANTITIES)
def test_quantities_by_gradcheck(name, rho):
    """Potentials, plans, products, maps; in the operand too."""
    operand = [cloud(5, 4)] if name.startswith(("apply", "potentials_at")) else []
    function = of_logarithms(dict(quantities(eps=0.5, rho=rho, **EXACT))[name], rho)
    assert gradcheck(function, small_problem(*operand), **CHECK)
    assert gradgradcheck(function, small_problem(*operand), fast_mode=True, **CHECK)


@pytest.mark.parametrize("rho", [None, (0.3, 2.0)])
@pytest.mark.parametrize("name", MATRIX_QUANTITIES)
def test_matrix_quantities_by_gradcheck(name, rho):
    function = of_logarithms(dict(matrix_quantities(eps=0.5, rho=rho, **EXACT))[name], rho, first=1)
    inputs = leaves(cloud(6, 4, 3), weights(3, 4).log(), weights(4, 3).log())
    assert gradcheck(function, inputs, **CHECK)
    assert gradgradcheck(function, inputs, fast_mode=True, **CHECK)


@pytest.mark.parametrize("kernel", ["energy", "gaussian", "laplacian"])
def test_kernel_losses_by_gradcheck(kernel):
    blur = None if kernel == "energy" else 0.7
    for function in (lambda *z: sinkdiv.mmd(*z, kernel=kernel, blur=blur), sinkdiv.MMD(kernel=kernel, blur=blur)):
        assert gradcheck(of_logarithms(function, None), small_problem(), **CHECK)
        assert gradgradcheck(of_logarithms(function, None), small_problem(), **CHECK)


@pytest.mark.parametrize("name", ["divergence entropic", "divergence sharp", "plan", "potentials_at"])
def test_batches_by_gradcheck(name):
    operand = [cloud(5, 4, batch=2)] if name == "potentials_at" else []
    inputs = leaves(cloud(1, 4, batch=2), cloud(2, 3, batch=2), weights(3, 4, batch=2), weights(4, 3, batch=2))
    function = {**dict(losses(eps=0.5, rho=0.7, **EXACT)), **dict(quantities(eps=0.5, rho=0.7, **EXACT))}[name]
    assert gradcheck(function, [*inputs, *operand], fast_mode=True, **CHECK)
    assert gradgradcheck(function, [*inputs, *operand], fast_mode=True, **CHECK)


# Hessian-vector products.


def problem(rho):
    return cloud(700, 7), cloud(701, 6) + 0.2, weights(700, 7), weights(701, 6, mass=1.0 if rho is None else 1.4)


def tangent(seed, tensors, rho, growing=True):
    """A direction in points and weights; where the marginals are hard, both masses grow together, or neither."""
    steps = [direction(seed + i, tensor.shape) for i, tensor in enumerate(tensors)]
    if rho is None:
        growth = 1.0 if growing else 0.0
        steps[2:] = (centred(seed + i, w.shape) + growth / len(w) for i, w in ((2, tensors[2]), (3, tensors[3])))
    steps[2:] = (0.1 * step for step in steps[2:])
    return steps


def gradient(function, tensors):
    inputs = leaves(*tensors)
    return torch.autograd.grad(function(*inputs), inputs)


def hessian_product(function, tensors, steps):
    inputs = leaves(*tensors)
    grads = torch.autograd.grad(function(*inputs), inputs, create_graph=True)
    return torch.autograd.grad(sum((g * step).sum() for g, step in zip(grads, steps, strict=True)), inputs)


HESSIAN_CASES = [
    *((sinkdiv.transport_cost, cost, "default") for cost in COSTS),
    *((sinkdiv.sinkhorn_divergence, "sqeuclidean", way) for way in ("default", "streamed", "tiled")),
    (sinkdiv.sinkhorn_divergence, "euclidean", "default"),
]


@pytest.mark.parametrize(("function", "cost", "way"), HESSIAN_CASES)
@pytest.mark.parametrize("rho", RHOS.values(), ids=RHOS)
@pytest.mark.parametrize("value", VALUES)
def test_hessian_product_is_the_difference_of_gradients(request, function, way, value, rho, cost):
    """In points and weights, cross terms included, each block; up to constants for weights under hard marginals."""
    if way != "default":
        request.getfixturevalue(way)
    tensors = problem(rho)
    steps = tangent(702, tensors, rho)

    def loss(*z):
        return function(*z, eps=0.2, rho=rho, cost=cost, value=value, **tight())

    blocks = [
        gradient(loss, [t + k * 1e-3 * step for t, step in zip(tensors, steps, strict=True)]) for k in (-2, -1, 1, 2)
    ]
    for i, found in enumerate(hessian_product(loss, tensors, steps)):
        expected = (blocks[0][i] - 8 * blocks[1][i] + 8 * blocks[2][i] - blocks[3][i]) / 12e-3
        if i >= 2 and rho is None:
            found, expected = found - found.mean(), expected - expected.mean()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("rho", RHOS.values(), ids=RHOS)
@pytest.mark.parametrize("function", [sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence])
def test_hessian_product_of_some_inputs_is_part_of_that_of_all(function, value, rho):
    """Whatever else requires a gradient; the cross terms included."""
    tensors = problem(rho)
    steps = tangent(720, tensors, rho, growing=False)
    whole = {}
    for i in range(4):
        alone = [step if i == j else torch.zeros_like(step) for j, step in enumerate(steps)]
        whole[i] = hessian_product(lambda *z: function(*z, eps=0.2, rho=rho, value=value, **tight()), tensors, alone)
    for first in range(4):
        for second in range(4):
            inputs = [t.clone().requires_grad_(i in (first, second)) for i, t in enumerate(tensors)]
            loss = function(*inputs, eps=0.2, rho=rho, value=value, **tight())
            (grad,) = torch.autograd.grad(loss, inputs[first], create_graph=True)
            (found,) = torch.autograd.grad((grad * steps[first]).sum(), inputs[second])
            difference = found - whole[first][second]
            if rho is None and second >= 2:
                difference = difference - difference.mean()
            torch.testing.assert_close(difference, torch.zeros_like(difference), rtol=0, atol=1e-8)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("rho", RHOS.values(), ids=RHOS)
def test_hessian_is_a_symmetric_form(value, rho):
    """<w, Hv> = <v, Hw>, for v and w in points and weights; with masses that grow together too."""
    tensors = problem(rho)
    v, w = tangent(703, tensors, rho), tangent(710, tensors, rho)

    def loss(*z):
        return sinkdiv.sinkhorn_divergence(*z, eps=0.2, rho=rho, value=value, **tight())

    def form(v, w):
        return sum(float((h * s).sum()) for h, s in zip(hessian_product(loss, tensors, v), w, strict=True))

    assert form(v, w) == pytest.approx(form(w, v), abs=1e-9)
    expected = slope(
        lambda t: sum(
            (g * s).sum()
            for g, s in zip(gradient(loss, [z + t * d for z, d in zip(tensors, v, strict=True)]), w, strict=True)
        )
    )
    assert form(v, w) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("mass", [1.0, 1.7])
@pytest.mark.parametrize("value", VALUES)
def test_hessian_product_along_a_translation(route, value, mass):
    """Squared cost: moving all of α by t adds |t|²·mass + 2<t, m_α−m_β> to S, so that H(1⊗t) = 2a⊗t (§5, 2)."""
    x, y, a, b = cloud(704, 8), cloud(705, 6) + 0.3, weights(704, 8, mass=mass), weights(705, 6, mass=mass)
    t = torch.tensor([0.7, -1.1], dtype=torch.float64)

    def loss(x):
        return sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.1, value=value, **tight())

    (found,) = hessian_product(loss, [x], [t.expand_as(x)])
    torch.testing.assert_close(found, 2 * a[:, None] * t, rtol=0, atol=1e-9)


def test_hessian_at_equal_measures_is_positive_semidefinite():
    """S_ε ≥ 0 = S_ε(α,α) (F19): its least value, where it is smooth: the squared cost."""
    x, a = cloud(706, 6), weights(706, 6)

    def loss(z):
        return sinkdiv.sinkhorn_divergence(z, x, a, a, eps=0.1, **tight())

    torch.testing.assert_close(gradient(loss, [x])[0], torch.zeros_like(x), rtol=0, atol=1e-9)
    H = torch.autograd.functional.hessian(loss, x).reshape(12, 12)
    torch.testing.assert_close(H, H.mT, rtol=0, atol=1e-9)
    eigenvalues = torch.linalg.eigvalsh(H)
    assert eigenvalues[0] >= -1e-9
    # Translations are eigenvectors only for equal weights; their Rayleigh quotient is 2Σa_i/n.
    assert eigenvalues[-1] >= 2 / 6 - 1e-9


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("rho", [None, 0.5])
def test_divergence_is_convex_in_each_weight(cost, rho):
    """F19, Theorem 1, at any weights: its Hessian in a is positive semidefinite; strictly, since ε is small."""
    x, y, a, b = problem(None)

    def loss(a):
        return sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.1, rho=rho, cost=cost, **tight())

    H = torch.autograd.functional.hessian(loss, a)
    keep_mass = torch.linalg.qr(torch.cat([torch.ones(7, 1).double(), torch.eye(7).double()[:, :6]], 1))[0][:, 1:]
    basis = keep_mass if rho is None else torch.eye(7, dtype=torch.float64)
    assert torch.linalg.eigvalsh(basis.mT @ H @ basis)[0] > 1e-6


@pytest.mark.parametrize("value", VALUES)
def test_third_derivative_is_the_difference_of_hessian_products(value):
    x, y, a, b = small_problem()
    a, b = a.detach().exp(), b.detach().exp()
    v, w = direction(707, x.shape), direction(708, x.shape)

    def loss(x):
        return sinkdiv.sinkhorn_divergence(x, y.detach(), a, b, eps=0.3, value=value, **EXACT)

    leaf = x.detach().clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    (product,) = torch.autograd.grad((grad * v).sum(), leaf, create_graph=True)
    (third,) = torch.autograd.grad((product * w).sum(), leaf)
    u = direction(709, x.shape)
    expected = slope(lambda t: (hessian_product(loss, [x.detach() + t * u], [v])[0] * w).sum())
    assert float((third * u).sum()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", VALUES)
def test_hessian_product_in_float32_agrees_with_float64(value):
    """n = 1000, where the linear systems are solved by conjugate gradients."""
    x, y, v = cloud(711, 1000, 3), cloud(712, 300, 3) + 0.1, direction(713, (1000, 3))
    products = []
    for dtype, tol in ((torch.float32, 1e-4), (torch.float64, 1e-6)):

        def loss(x, dtype=dtype, tol=tol):
            return sinkdiv.sinkhorn_divergence(x, y.to(dtype), eps=0.05, value=value, tol=tol)

        products.append(hessian_product(loss, [x.to(dtype)], [v.to(dtype)])[0])
    low, high = products
    assert low.dtype == torch.float32
    assert float((low.double() - high).norm() / high.norm()) < 1e-3


@pytest.mark.parametrize("kind", ["native", "reference"])
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("rho", [None, 1.0])
def test_hessian_product_holds_nothing_of_the_size_of_the_plan(request, monkeypatch, kind, value, rho):
    """Tiles hold at most 700 costs."""
    tile, n, m = 700, 90, 70
    if kind == "reference":
        request.getfixturevalue("without_native")
    for module, name in (
        (reference, "TILE_ENTRIES"),
        (cloud_geometry, "KEPT_ENTRIES"),
        (whole, "ENTRIES"),
        (hessian, "STORED_ENTRIES"),
    ):
        monkeypatch.setattr(module, name, tile)
    x, y, a, b = (cloud(714, n, 3), cloud(715, m, 3), weights(714, n), weights(715, m))
    with Largest() as largest:
        products = hessian_product(
            lambda *z: sinkdiv.sinkhorn_divergence(*z, eps=0.5, rho=rho, value=value),
            (x, y, a, b),
            [torch.ones_like(t) if t.ndim == 2 else t - t.mean() for t in (x, y, a, b)],
        )
    assert all(torch.isfinite(product).all() for product in products)
    assert largest.entries < n * m
    with Largest() as largest:  # it does see what a derivative makes
        hessian_product(
            lambda x: sinkdiv.solve(x, y, eps=0.5, rho=rho).plan().square().sum(), [x], [torch.ones_like(x)]
        )
    assert largest.entries >= n * m


def test_gradient_penalty():
    """A loss of a gradient, as critics are regularised: its derivative in the network that made the points."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    z, y = cloud(716, 6), cloud(717, 5)
    parameters = list(network.parameters())

    def penalty():
        x = network(z)
        (grad,) = torch.autograd.grad(
            sinkdiv.sinkhorn_divergence(x, y, eps=0.3, value="sharp", **tight()), x, create_graph=True
        )
        return grad.square().sum()

    grads = torch.autograd.grad(penalty(), parameters)
    steps = [direction(718 + i, p.shape) for i, p in enumerate(parameters)]

    def moved(t):
        for p, step in zip(parameters, steps, strict=True):
            p.data.add_(t * step)
        result = float(penalty().detach())
        for p, step in zip(parameters, steps, strict=True):
            p.data.sub_(t * step)
        return result

    found = sum(float((g * step).sum()) for g, step in zip(grads, steps, strict=True))
    assert found == pytest.approx(slope(moved), abs=1e-6)


def test_backward_can_be_repeated_and_left_unfinished():
    """A retained graph gives the same twice; a gradient with a graph that nobody uses is the plain one."""
    x, y, a, b = problem(None)
    x.requires_grad_()
    for value in VALUES:
        loss = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.2, value=value, **tight())
        (first,) = torch.autograd.grad(loss, x, retain_graph=True)
        (graphed,) = torch.autograd.grad(loss, x, create_graph=True)
        (last,) = torch.autograd.grad(loss, x)
        torch.testing.assert_close(graphed.detach(), first, rtol=0, atol=1e-9)
        torch.testing.assert_close(array(last), array(first), rtol=0, atol=0)
