"""The door: bad input raises ValueError before any work, and the message names the argument and what was expected."""

import pytest
import torch

import sinkdiv
from problems import cloud, weights
from sinkdiv.geometry.pairwise import PairwiseGeometry

X, Y, A, B = cloud(110, 6), cloud(111, 5), weights(110, 6), weights(111, 5)
XB, YB, AB, BB = (torch.stack([tensor] * 3) for tensor in (X, Y, A, B))
NAN, INF = float("nan"), float("inf")

ENTRANCES = {
    "solve": lambda *inputs: sinkdiv.solve(*inputs, eps=0.2),
    "transport_cost": lambda *inputs: sinkdiv.transport_cost(*inputs, eps=0.2),
    "solve_divergence": lambda *inputs: sinkdiv.solve_divergence(*inputs, eps=0.2),
    "sinkhorn_divergence": lambda *inputs: sinkdiv.sinkhorn_divergence(*inputs, eps=0.2),
    "unbalanced": lambda *inputs: sinkdiv.sinkhorn_divergence(*inputs, eps=0.2, rho=1.0),
    "mmd": lambda *inputs: sinkdiv.mmd(*inputs, kernel="gaussian", blur=1.0),
    "module": lambda *inputs: sinkdiv.SinkhornDivergence(eps=0.2)(*inputs),
}


@pytest.fixture(params=list(ENTRANCES))
def entrance(request, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("work was done before the door was passed")

    monkeypatch.setattr(PairwiseGeometry, "softmin", forbidden)
    return ENTRANCES[request.param]


def spoiled(tensor, value):
    tensor = tensor.clone()
    tensor.view(-1)[1] = value
    return tensor


BAD = {
    "x is a list": (([[0.0, 1.0]], Y), r"\bx\b.*Tensor.*\(n, d\).*list"),
    "x holds integers": ((X.long(), Y), r"\bx\b.*float.*int64"),
    "x is complex": ((X.to(torch.complex128), Y), r"\bx\b.*float"),
    "x is one point without axis": ((X[0], Y), r"\bx\b.*\(n, d\).*\(2,\)"),
    "x has four axes": ((XB[None], YB), r"\bx\b.*\(n, d\).*\(1, 3, 6, 2\)"),
    "x is empty": ((X[:0], Y), r"\bx\b.*empty.*\(0, 2\)"),
    "x has no coordinates": ((X[:, :0], Y[:, :0]), r"\bx\b.*empty.*\(6, 0\)"),
    "y is None": ((X, None), r"\by\b.*Tensor"),
    "y is empty": ((X, Y[:0]), r"\by\b.*empty.*\(0, 2\)"),
    "y is a batch, x is not": ((X, YB), r"\by\b.*\(m, d\).*\(3, 5, 2\)"),
    "x is a batch, y is not": ((XB, Y), r"\by\b.*\(B, m, d\).*\(5, 2\)"),
    "y has another dimension": ((X, cloud(0, 5, 3)), r"x and y.*\(6, 2\).*\(5, 3\)"),
    "y has another batch": ((XB, YB[:2]), r"x and y.*\(3, 6, 2\).*\(2, 5, 2\)"),
    "y has another dtype": ((X, Y.float()), r"\by\b.*float64.*float32"),
    "y is on another device": ((X, Y.to("meta")), r"\by\b"),
    "x holds NaN": ((spoiled(X, NAN), Y), r"\bx\b.*NaN.*\(6, 2\)"),
    "x holds inf": ((spoiled(X, INF), Y), r"\bx\b.*infinite.*\(6, 2\)"),
    "y holds NaN": ((X, spoiled(Y, NAN)), r"\by\b.*NaN"),
    "y holds -inf": ((X, spoiled(Y, -INF)), r"\by\b.*infinite"),
    "a is a list": ((X, Y, [1 / 6] * 6), r"\ba\b.*Tensor.*\(6,\).*list"),
    "a holds integers": ((X, Y, torch.ones(6, dtype=torch.int64)), r"\ba\b.*int64"),
    "a has the wrong length": ((X, Y, weights(0, 5)), r"\ba\b.*\(6,\).*\(5"),
    "a has an axis too many": ((X, Y, A[None]), r"\ba\b.*\(6,\).*\(1, 6\)"),
    "a is negative somewhere": ((X, Y, spoiled(A, -0.1)), r"\ba\b.*negative.*-0\.1"),
    "a has no mass": ((X, Y, 0 * A), r"\ba\b.*mass"),
    "a holds NaN": ((X, Y, spoiled(A, NAN)), r"\ba\b.*NaN"),
    "b is given in place of a": ((X, Y, B, A), r"\ba\b.*\(6,\)"),
    "b has the wrong length": ((X, Y, A, A), r"\bb\b.*\(5,\).*\(6"),
    "b holds inf": ((X, Y, A, spoiled(B, INF)), r"\bb\b.*infinite"),
    "b is negative somewhere": ((X, Y, A, spoiled(B, -1e-9)), r"\bb\b.*negative"),
    "one b of a batch has no mass": ((XB, YB, AB, BB * torch.tensor([[1.0], [0.0], [1.0]])), r"\bb\b.*mass"),
    "a of a batch is not": ((XB, YB, A), r"\ba\b.*\(3, 6\).*\(6"),
}


@pytest.mark.parametrize("what", list(BAD))
def test_bad_samples(entrance, what):
    inputs, message = BAD[what]
    with pytest.raises(ValueError, match=message):
        entrance(*inputs)


@pytest.mark.parametrize("name", ["solve", "transport_cost", "solve_divergence", "sinkhorn_divergence", "module"])
@pytest.mark.parametrize(("dtype", "excess"), [(torch.float32, 2e-4), (torch.float64, 2e-8)])
def test_hard_marginals_need_equal_masses(name, dtype, excess):
    """They must agree to 1e-4 (float32) or 1e-8 (float64), relative; half of that is forgiven."""
    inputs = X.to(dtype), Y.to(dtype), A.to(dtype)
    with pytest.raises(ValueError, match=r"a and b.*mass"):
        ENTRANCES[name](*inputs, (B * (1 + excess)).to(dtype))
    with pytest.raises(ValueError, match=r"a and b.*mass"):
        ENTRANCES[name](*inputs, (B * (1 - excess)).to(dtype))
    ENTRANCES[name](*inputs, (B * (1 + excess / 4)).to(dtype))


def test_message_about_masses_shows_that_they_differ():
    with pytest.raises(ValueError, match="masses") as caught:
        sinkdiv.solve(X, Y, A, B * (1 + 1e-7), eps=0.2)
    first, second = str(caught.value).split("a sums to ")[1].split(":")[0].split(" and b to ")
    assert first != second


def test_energy_kernel_needs_equal_masses():
    with pytest.raises(ValueError, match=r"a and b.*mass"):
        sinkdiv.mmd(X, Y, A, 2 * B, kernel="energy")


def test_soft_marginals_do_not_need_equal_masses():
    assert torch.isfinite(sinkdiv.sinkhorn_divergence(X, Y, A, 3 * B, eps=0.2, rho=1.0))


BAD_MATRICES = {
    "C is a list": (([[1.0]],), r"\bC\b.*Tensor.*list"),
    "C holds integers": ((torch.ones(3, 3, dtype=torch.int64),), r"\bC\b.*int64"),
    "C has one axis": ((X[0],), r"\bC\b.*\(n, m\).*\(2,\)"),
    "C is empty": ((X[:0],), r"\bC\b.*empty"),
    "C holds NaN": ((spoiled(X, NAN),), r"\bC\b.*NaN"),
    "C holds -inf": ((spoiled(X, -INF),), r"\bC\b.*infinite"),
    "a has the wrong length": ((X, weights(0, 2)), r"\ba\b.*\(6,\).*rows of C"),
    "b has the wrong length": ((X, None, A), r"\bb\b.*\(2,\).*columns of C"),
    "masses differ": ((X, 2 * A), r"a and b.*mass"),
}


@pytest.mark.parametrize("what", list(BAD_MATRICES))
def test_bad_matrices(what):
    inputs, message = BAD_MATRICES[what]
    with pytest.raises(ValueError, match=message):
        sinkdiv.solve_matrix(*inputs, eps=0.2)


BAD_OPTIONS = {
    "no regularisation": ({}, r"blur.*eps"),
    "two regularisations": ({"blur": 0.1, "eps": 0.1}, r"blur.*eps.*both"),
    "blur is zero": ({"blur": 0.0}, r"blur.*positive"),
    "eps is negative": ({"eps": -1.0}, r"eps.*positive"),
    "eps is NaN": ({"eps": NAN}, r"eps.*positive"),
    "eps is inf": ({"eps": INF}, r"eps.*finite"),
    "eps is text": ({"eps": "0.1"}, r"eps.*'0.1'"),
    "eps is True": ({"eps": True}, r"eps.*True"),
    "two strengths": ({"eps": 1.0, "reach": 1.0, "rho": 1.0}, r"reach.*rho.*both"),
    "reach is zero": ({"eps": 1.0, "reach": 0.0}, r"reach.*positive"),
    "rho is negative": ({"eps": 1.0, "rho": -1.0}, r"rho.*positive"),
    "rho has three numbers": ({"eps": 1.0, "rho": (1.0, 2.0, 3.0)}, r"rho.*pair"),
    "half of rho is bad": ({"eps": 1.0, "rho": (1.0, NAN)}, r"rho.*positive"),
    "unknown cost": ({"eps": 1.0, "cost": "sqeuclidian"}, r"cost.*sqeuclidean.*sqeuclidian"),
    "cost is None": ({"eps": 1.0, "cost": None}, r"cost.*None"),
    "tol is zero": ({"eps": 1.0, "tol": 0.0}, r"tol.*positive"),
    "tol is NaN": ({"eps": 1.0, "tol": NAN}, r"tol.*positive"),
    "solver is text": ({"eps": 1.0, "solver": "newton"}, r"solver.*sinkdiv\.Auto\(\).*'newton'"),
    "solver is a class": ({"eps": 1.0, "solver": sinkdiv.Newton}, r"solver.*sinkdiv\.Auto\(\)"),
}


@pytest.mark.parametrize("what", list(BAD_OPTIONS))
@pytest.mark.parametrize(
    "function", [sinkdiv.solve, sinkdiv.transport_cost, sinkdiv.solve_divergence, sinkdiv.sinkhorn_divergence]
)
def test_bad_options(function, what):
    options, message = BAD_OPTIONS[what]
    with pytest.raises(ValueError, match=message):
        function(X, Y, **options)


@pytest.mark.parametrize("what", list(BAD_OPTIONS))
@pytest.mark.parametrize("module", [sinkdiv.SinkhornDivergence, sinkdiv.TransportCost])
def test_modules_check_their_options_when_they_are_made(module, what):
    options, message = BAD_OPTIONS[what]
    with pytest.raises(ValueError, match=message):
        module(**options)


@pytest.mark.parametrize("solver", [sinkdiv.Auto, sinkdiv.Sinkhorn, sinkdiv.Newton, sinkdiv.LBFGS])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_passes": 1}, r"max_passes.*2.*1"),
        ({"max_passes": 10.0}, r"max_passes.*integer"),
        ({"max_passes": True}, r"max_passes.*integer"),
        ({"warm_start": "yes"}, r"warm_start.*True.*Transport.*'yes'"),
        ({"precision": "low"}, r"precision.*'high', 'tf32'.*'low'"),
        ({"progress": 1}, r"progress.*True or False.*1"),
        ({"callback": 3}, r"callback.*callable.*int"),
    ],
)
def test_solvers_check_their_options_when_they_are_made(solver, options, message):
    with pytest.raises(ValueError, match=message):
        solver(**options)


def test_mistyped_options_are_not_swallowed():
    with pytest.raises(TypeError, match="blurr"):
        sinkdiv.sinkhorn_divergence(X, Y, blurr=0.1)
    with pytest.raises(TypeError, match="blurr"):
        sinkdiv.SinkhornDivergence(blurr=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "cauchy", "blur": 1.0}, "kernel.*energy.*cauchy"),
        ({"kernel": "gaussian"}, "gaussian.*blur"),
        ({"kernel": "laplacian", "blur": -1.0}, "laplacian.*blur"),
        ({"kernel": "gaussian", "blur": NAN}, "gaussian.*blur"),
        ({"kernel": "energy", "blur": 1.0}, "energy.*blur"),
    ],
)
def test_bad_kernels(options, message):
    with pytest.raises(ValueError, match=message):
        sinkdiv.mmd(X, Y, **options)
    with pytest.raises(ValueError, match=message):
        sinkdiv.MMD(**options)(X, Y)


def test_matrix_needs_eps_in_its_own_units():
    with pytest.raises((TypeError, ValueError), match="eps"):
        sinkdiv.solve_matrix(X)
    with pytest.raises(ValueError, match=r"eps.*positive"):
        sinkdiv.solve_matrix(X, eps=0.0)


# What is good input.


def test_equal_sizes_with_unequal_weights(dtype, route):
    """n = m is nothing special."""
    value = sinkdiv.sinkhorn_divergence(X.to(dtype), X.flip(0).to(dtype), A.to(dtype), A.to(dtype), eps=0.2)
    assert value.dtype == dtype
    assert value > 0


@pytest.mark.parametrize("weights_dtype", [torch.float64, torch.float32])
def test_weights_may_have_another_dtype(weights_dtype):
    """The result's is the points'; the gradient of each input is its own."""
    a = A.to(weights_dtype, copy=True).requires_grad_()
    x = X.float().requires_grad_()
    value = sinkdiv.sinkhorn_divergence(x, Y.float(), a, B.to(weights_dtype), eps=0.2)
    value.backward()
    assert value.dtype == x.grad.dtype == torch.float32
    assert a.grad.dtype == weights_dtype


def test_omitted_weights_are_uniform(dtype, route):
    uniform = [torch.full((n,), 1 / n, dtype=dtype) for n in (6, 5)]
    x, y = X.to(dtype), Y.to(dtype)
    for function in (sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence):
        torch.testing.assert_close(function(x, y, eps=0.2), function(x, y, *uniform, eps=0.2))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32_and_cast_back(half, route):
    """The float32 problem's result, rounded once: half an ulp, doubled. The divergence is small against its terms."""
    x = (X.to(half) + 2).requires_grad_()
    y = (X[:5] + 2.1).to(half)
    wide_x = x.detach().float().requires_grad_()
    ulp = torch.finfo(half).eps
    for function in (sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence):
        narrow, wide = function(x, y, eps=0.2), function(wide_x, y.float(), eps=0.2)
        assert narrow.dtype == half
        torch.testing.assert_close(narrow.float(), wide, rtol=ulp, atol=0)
        (grad,), (wide_grad,) = torch.autograd.grad(narrow, x), torch.autograd.grad(wide, wide_x)
        assert grad.dtype == half
        torch.testing.assert_close(grad.float(), wide_grad, rtol=2 * ulp, atol=1e-3 * ulp + 1e-6)
    t = sinkdiv.solve(x.detach(), y, eps=0.2)
    tensors = [t.f, t.g, t.sharp, t.plan(), t.apply(y), t.barycentric_map(), *t.marginals(), t.potentials_at(y)]
    assert {tensor.dtype for tensor in tensors} == {half}


def test_strided_and_expanded_inputs(route):
    """Views are as good as copies."""
    wide = torch.cat([X, X], 1)[:, ::2]
    y = Y.T.contiguous().T
    expected = sinkdiv.sinkhorn_divergence(wide.contiguous(), Y, eps=0.2)
    torch.testing.assert_close(sinkdiv.sinkhorn_divergence(wide, y, eps=0.2), expected)
    batch = sinkdiv.sinkhorn_divergence(wide.expand(2, -1, -1), y.expand(2, -1, -1), eps=0.2)
    torch.testing.assert_close(batch, expected.expand(2))


def test_inputs_are_not_modified(dtype, route):
    """Nor is anything written to them: not even on the way to bounds, plans and gradients."""
    inputs = [tensor.to(dtype).clone().requires_grad_() for tensor in (X, Y, A, B)]
    before = [tensor.detach().clone() for tensor in inputs]
    versions = [tensor._version for tensor in inputs]
    d = sinkdiv.solve_divergence(*inputs, eps=0.2)
    d.value.backward()
    assert len(d.bounds) == 2
    with torch.no_grad():
        assert d.ab.plan().shape == (6, 5)
        assert d.ab.barycentric_map().shape == (6, 2)
    sinkdiv.mmd(*inputs).backward()
    assert [tensor._version for tensor in inputs] == versions
    for tensor, copy in zip(inputs, before, strict=True):
        assert torch.equal(tensor, copy)


def test_costs_that_overflow_are_refused():
    """1e25 fits into float32, its square does not."""
    far = torch.tensor([[0.0], [1e25]])
    with pytest.raises(ValueError, match=r"x and y.*overflow"):
        sinkdiv.solve(far, far + 1, eps=1.0)
    with pytest.raises(ValueError, match=r"C .*overflow"):
        sinkdiv.solve_matrix(torch.tensor([[-3e38, 3e38]]), eps=1.0)


def test_weights_that_overflow_the_points_dtype_are_refused():
    with pytest.raises(ValueError, match=r"\ba\b.*infinite"):
        sinkdiv.solve(X.float(), Y.float(), torch.full((6,), 1e39, dtype=torch.float64), eps=1.0)
