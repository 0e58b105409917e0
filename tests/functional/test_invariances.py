"""What must not change, and what must change in step: mathematics, oracle 6."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sinkdiv
from problems import CLOSE, EXPONENT, cloud, tight, weights

NAMES = st.sampled_from(sorted(EXPONENT))
SEEDS = st.integers(0, 999)
FUNCTIONS = [sinkdiv.transport_cost, sinkdiv.sinkhorn_divergence]


@pytest.fixture(params=FUNCTIONS, ids=["transport", "divergence"])
def function(request):
    return request.param


@pytest.fixture(params=[None, 0.5], ids=["balanced", "unbalanced"])
def rho(request):
    return request.param


def problem(seed, dtype, n=8, m=7, d=2):
    """Two clouds with weights, one of which is zero."""
    b = weights(seed + 1, m - 1, dtype=dtype)
    b = torch.cat([b, b.new_zeros(1)])
    return cloud(seed, n, d, dtype=dtype), cloud(seed + 1, m, d, dtype=dtype) + 0.3, weights(seed, n, dtype=dtype), b


def same(first, second, dtype, scale=1.0):
    torch.testing.assert_close(first, second, rtol=0, atol=2 * scale * CLOSE[dtype])


@given(seed=SEEDS, scale=st.floats(1e-3, 1e3), name=NAMES)
def test_scaling_points_by_s_scales_values_by_s_to_the_p(function, rho, dtype, route, seed, scale, name):
    """S_{sᵖε}(s·x, s·y) = sᵖ S_ε(x,y); ρ is scaled like ε."""
    x, y, a, b = problem(seed, dtype)
    unit = scale ** EXPONENT[name]
    value = function(x, y, a, b, eps=0.2, rho=rho, cost=name, **tight(dtype))
    scaled_rho = None if rho is None else rho * unit
    scaled = function(x * scale, y * scale, a, b, eps=0.2 * unit, rho=scaled_rho, cost=name, **tight(dtype))
    same(scaled / unit, value, dtype)


@given(seed=SEEDS, name=NAMES)
def test_exchanging_the_measures_changes_nothing(function, rho, dtype, route, seed, name):
    x, y, a, b = problem(seed, dtype)
    options = {"eps": 0.2, "rho": rho, "cost": name, **tight(dtype)}
    same(function(x, y, a, b, **options), function(y, x, b, a, **options), dtype)


def test_exchanging_the_measures_exchanges_a_pair_of_strengths(function, route):
    x, y, a, b = problem(0, torch.float64)
    forth = function(x, y, a, 2 * b, eps=0.2, rho=(0.3, 2.0), **tight())
    back = function(y, x, 2 * b, a, eps=0.2, rho=(2.0, 0.3), **tight())
    if function is sinkdiv.transport_cost:
        same(forth, back, torch.float64)
    else:
        assert torch.isfinite(forth)


@given(seed=SEEDS, name=NAMES)
def test_order_of_the_points_changes_nothing(function, rho, dtype, route, seed, name):
    x, y, a, b = problem(seed, dtype)
    generator = torch.Generator().manual_seed(seed)
    i, j = torch.randperm(len(x), generator=generator), torch.randperm(len(y), generator=generator)
    options = {"eps": 0.2, "rho": rho, "cost": name, **tight(dtype)}
    same(function(x, y, a, b, **options), function(x[i], y[j], a[i], b[j], **options), dtype)


@given(seed=SEEDS, share=st.floats(0.0, 1.0), name=NAMES)
def test_splitting_an_atom_in_two_changes_nothing(function, rho, dtype, route, seed, share, name):
    """A point of weight w is the same as two points there of weights sw and (1−s)w; s = 0 pads with weight zero."""
    x, y, a, b = problem(seed, dtype)
    split_x = torch.cat([x, x[:1]])
    split_a = torch.cat([a, share * a[:1]])
    split_a[0] = (1 - share) * a[0]
    options = {"eps": 0.2, "rho": rho, "cost": name, **tight(dtype)}
    same(function(split_x, y, split_a, b, **options), function(x, y, a, b, **options), dtype)


@given(seed=SEEDS, name=NAMES)
def test_points_of_weight_zero_change_nothing(function, rho, dtype, route, seed, name):
    x, y, a, b = problem(seed, dtype)
    far = torch.full((2, 2), 3.0, dtype=dtype)
    padded = torch.cat([x, far]), torch.cat([y, -far]), torch.cat([a, a.new_zeros(2)]), torch.cat([b, b.new_zeros(2)])
    options = {"eps": 0.2, "rho": rho, "cost": name, **tight(dtype)}
    same(function(*padded, **options), function(x, y, a, b, **options), dtype, scale=2)


@given(seed=SEEDS, name=NAMES)
def test_moving_and_turning_both_clouds_changes_nothing(function, rho, dtype, route, seed, name):
    """The costs are functions of the distance."""
    x, y, a, b = problem(seed, dtype)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=dtype)
    shift = torch.tensor([2.0, -1.0], dtype=dtype)
    options = {"eps": 0.2, "rho": rho, "cost": name, **tight(dtype)}
    same(function(x @ turn + shift, y @ turn + shift, a, b, **options), function(x, y, a, b, **options), dtype, scale=2)


@given(seed=SEEDS, shift=st.floats(-3, 3))
def test_a_constant_added_to_the_matrix_is_added_to_the_values(dtype, seed, shift):
    """Unit mass: OT_ε and <P,C> for C + c are those for C, plus c; the plan is the same."""
    C = cloud(seed, 8, 6, dtype=dtype)
    plain = sinkdiv.solve_matrix(C, eps=0.1, **tight(dtype))
    shifted = sinkdiv.solve_matrix(C + shift, eps=0.1, **tight(dtype))
    same(shifted.value, plain.value + shift, dtype, scale=3)
    same(shifted.sharp, plain.sharp + shift, dtype, scale=3)
    same(shifted.plan(), plain.plan(), dtype)


@given(seed=SEEDS)
def test_swapping_rows_and_columns_transposes_the_plan(dtype, seed):
    C, a, b = cloud(seed, 8, 6, dtype=dtype), weights(seed, 8, dtype=dtype), weights(seed, 6, dtype=dtype)
    forth = sinkdiv.solve_matrix(C, a, b, eps=0.1, **tight(dtype))
    back = sinkdiv.solve_matrix(C.mT, b, a, eps=0.1, **tight(dtype))
    same(forth.plan(), back.plan().mT, dtype)
    same(forth.value, back.value, dtype)


# A batch equals a loop.


def batch_of_problems(dtype):
    """Four problems that need different numbers of passes: scales 0.1, 1, 2 and 1 with a far point."""
    x, y = cloud(30, 9, batch=4, dtype=dtype), cloud(31, 8, batch=4, dtype=dtype) + 0.2
    scale = torch.tensor([0.1, 1.0, 2.0, 1.0], dtype=dtype)[:, None, None]
    x, y = x * scale, y * scale
    x[3, 0] += 3
    return x, y, weights(30, 9, batch=4, dtype=dtype), weights(31, 8, batch=4, dtype=dtype)


@pytest.mark.parametrize("name", sorted(EXPONENT))
def test_a_batch_equals_a_loop(function, rho, dtype, route, name):
    x, y, a, b = batch_of_problems(dtype)
    options = {"eps": 0.2, "rho": rho, "cost": name, "tol": 1e-4}
    together = function(x, y, a, b, **options)
    one_by_one = torch.stack([function(*sample, **options) for sample in zip(x, y, a, b, strict=True)])
    assert together.shape == (4,)
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=10 * torch.finfo(dtype).eps * 10)


@pytest.mark.parametrize("name", sorted(EXPONENT))
def test_a_batch_spends_on_each_problem_what_a_loop_would(rho, dtype, route, name):
    x, y, a, b = batch_of_problems(dtype)
    options = {"eps": 0.2, "rho": rho, "cost": name, "tol": 1e-4}
    together = sinkdiv.solve(x, y, a, b, **options)
    alone = [sinkdiv.solve(*sample, **options) for sample in zip(x, y, a, b, strict=True)]
    assert together.passes.tolist() == [t.passes for t in alone]
    assert len(set(together.passes.tolist())) > 1
    assert together.status == tuple(t.status for t in alone)
    assert together.converged.tolist() == [t.converged for t in alone]
    # A problem that is done stays as it was when it met the tolerance.
    near = {"rtol": 0, "atol": 1e3 * torch.finfo(dtype).eps}
    for quantity in ("marginal_error", "f", "g"):
        expected = torch.stack([getattr(t, quantity) for t in alone])
        torch.testing.assert_close(getattr(together, quantity), expected, **near)
    torch.testing.assert_close(together.plan(), torch.stack([t.plan() for t in alone]), **near)
    for side in (0, 1):
        expected = torch.stack([t.bounds[side] for t in alone])
        torch.testing.assert_close(together.bounds[side], expected, rtol=0, atol=1e3 * torch.finfo(dtype).eps)


def test_a_batch_of_matrices_equals_a_loop(rho, dtype):
    C = cloud(32, 7, 6, batch=3, dtype=dtype) * torch.tensor([0.1, 1.0, 3.0], dtype=dtype)[:, None, None]
    a, b = weights(32, 7, batch=3, dtype=dtype), weights(33, 6, batch=3, dtype=dtype)
    together = sinkdiv.solve_matrix(C, a, b, eps=0.1, rho=rho, tol=1e-4)
    alone = [sinkdiv.solve_matrix(*sample, eps=0.1, rho=rho, tol=1e-4) for sample in zip(C, a, b, strict=True)]
    assert together.passes.tolist() == [t.passes for t in alone]
    torch.testing.assert_close(together.value, torch.stack([t.value for t in alone]), rtol=0, atol=CLOSE[dtype])
    v = cloud(34, 6, 2, batch=3, dtype=dtype)
    expected = torch.stack([t.apply(column) for t, column in zip(alone, v, strict=True)])
    torch.testing.assert_close(together.apply(v), expected, rtol=0, atol=CLOSE[dtype])


def test_a_batch_of_one_keeps_its_axis(function, dtype, route):
    x, y, a, b = problem(3, dtype)
    options = {"eps": 0.2, **tight(dtype)}
    single = function(x, y, a, b, **options)
    batch = function(x[None], y[None], a[None], b[None], **options)
    assert single.shape == ()
    assert batch.shape == (1,)
    same(batch[0], single, dtype)


# Lists of problems of different sizes.


def ragged(seed, dtype):
    sizes = [(5, 7), (1, 3), (40, 20), (9, 9)]
    x = [cloud(seed + k, n, 2, dtype=dtype) for k, (n, _) in enumerate(sizes)]
    y = [cloud(seed + 10 + k, m, 2, dtype=dtype) + 0.1 for k, (_, m) in enumerate(sizes)]
    a = [weights(seed + k, n, dtype=dtype) for k, (n, _) in enumerate(sizes)]
    b = [weights(seed + 10 + k, m, dtype=dtype) for k, (_, m) in enumerate(sizes)]
    return x, y, a, b


@pytest.mark.parametrize("value", ["entropic", "sharp"])
def test_lists_equal_a_loop(dtype, route, value):
    """Problems of a list are solved together, and each as if alone."""
    x, y, a, b = ragged(70, dtype)
    together = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.1, value=value)
    alone = [sinkdiv.sinkhorn_divergence(*one, eps=0.1, value=value) for one in zip(x, y, a, b, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=0)


def test_lists_are_differentiated_as_a_loop_is(dtype, route):
    x, y, a, b = ragged(71, dtype)
    for tensor in (*x, *a):
        tensor.requires_grad_()
    together = torch.autograd.grad(sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.1).sum(), (*x, *a))
    alone = [
        torch.autograd.grad(sinkdiv.sinkhorn_divergence(*one, eps=0.1), (one[0], one[2]))
        for one in zip(x, y, a, b, strict=True)
    ]
    expected = [grads[0] for grads in alone] + [grads[1] for grads in alone]
    for have, want in zip(together, expected, strict=True):
        torch.testing.assert_close(have, want, rtol=0, atol=0)


def test_bad_lists_are_named(dtype):
    x, y, a, b = ragged(72, dtype)
    for arguments, message in [
        ((x, y[:3]), "y must be a list of 4 tensors"),
        ((x, y[0]), "y must be a list of 4 tensors"),
        ((x, y, a[:2], b), "a must be a list"),
        (([], []), "empty list"),
        ((x, [*y[:3], y[3][:, :1]]), "problem 3 .* same dimension"),
        ((x, [*y[:2], y[2] * torch.nan, y[3]]), "problem 2 .* y holds NaN"),
        (([x[0][None]], [y[0][None]]), "problem 0 .* x must have shape"),
        (([x[0], x[1].half()], [y[0], y[1].half()]), "problem 1 .* dtype"),
    ]:
        with pytest.raises(ValueError, match=message):
            sinkdiv.sinkhorn_divergence(*arguments, eps=0.1)
