"""Lists of clouds of different sizes: each problem is solved as if it were alone."""

import pytest
import torch

import sinkdiv
from problems import cloud, weights

SIZES = [(5, 4), (3, 6), (7, 7)]

LOSSES = {
    "sinkhorn_divergence": (sinkdiv.sinkhorn_divergence, {"eps": 0.1}),
    "unbalanced": (sinkdiv.sinkhorn_divergence, {"eps": 0.1, "rho": 0.5}),
    "sharp": (sinkdiv.sinkhorn_divergence, {"eps": 0.1, "value": "sharp"}),
    "unrolled": (sinkdiv.sinkhorn_divergence, {"eps": 0.1, "rho": 0.5, "solver": sinkdiv.Unrolled(iterations=5)}),
    "newton": (sinkdiv.sinkhorn_divergence, {"eps": 0.1, "solver": sinkdiv.Newton()}),
    "function": (sinkdiv.transport_cost, {"eps": 0.1, "cost": lambda x, y: torch.cdist(x, y)}),
    "features": (sinkdiv.transport_cost, {"eps": 0.1, "cost": torch.nn.Tanh()}),
    "transport_cost": (sinkdiv.transport_cost, {"blur": 0.3}),
    "mmd": (sinkdiv.mmd, {"kernel": "gaussian", "blur": 0.5}),
}

MODULES = {
    sinkdiv.sinkhorn_divergence: sinkdiv.SinkhornDivergence,
    sinkdiv.transport_cost: sinkdiv.TransportCost,
    sinkdiv.mmd: sinkdiv.MMD,
}


def problems(weighted):
    """(xs, ys, aa, bb), lists."""
    xs, ys = ([cloud(seed + k, size[side]) for k, size in enumerate(SIZES)] for side, seed in ((0, 10), (1, 20)))
    if not weighted:
        return xs, ys, None, None
    aa, bb = ([weights(seed + k, size[side]) for k, size in enumerate(SIZES)] for side, seed in ((0, 10), (1, 20)))
    return xs, ys, aa, bb


def alone(lists):
    """Each problem's (x, y, a, b)."""
    return [[one and one[k] for one in lists] for k in range(len(SIZES))]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_list_is_a_loop(name, weighted, dtype):
    """Values and gradients, of functions and of modules, to the rounding of sums."""
    function, options = LOSSES[name]
    xs, ys, aa, bb = (one and [t.to(dtype) for t in one] for one in problems(weighted))
    xs = [x.requires_grad_() for x in xs]
    expected = torch.stack([function(*one, **options) for one in alone((xs, ys, aa, bb))])
    for loss in (lambda *inputs: function(*inputs, **options), MODULES[function](**options)):
        found = loss(xs, ys, aa, bb)
        assert found.shape == (len(SIZES),)
        torch.testing.assert_close(found, expected)
        grads = [torch.autograd.grad(value.sum(), xs, retain_graph=True) for value in (found, expected)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("solve", [sinkdiv.solve, sinkdiv.solve_divergence])
def test_solved_lists_are_lists(solve):
    lists = problems(weighted=True)
    found = solve(*lists, eps=0.1)
    assert isinstance(found, list)
    for solved, inputs in zip(found, alone(lists), strict=True):
        expected = solve(*inputs, eps=0.1)
        assert repr(solved) == repr(expected)
        torch.testing.assert_close(solved.value, expected.value, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(solved.bounds, expected.bounds, rtol=1e-12, atol=1e-12)


def test_one_warning_counts_the_problems_of_a_list():
    xs, ys, *_ = problems(weighted=False)
    with pytest.warns(sinkdiv.ConvergenceWarning, match="3 of 3") as caught:
        sinkdiv.solve(xs, ys, eps=1e-3, tol=1e-9, solver=sinkdiv.Auto(max_passes=2))
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_module_warns_where_it_is_called():
    xs, ys, *_ = problems(weighted=False)
    criterion = sinkdiv.SinkhornDivergence(eps=1e-3, tol=1e-9, solver=sinkdiv.Auto(max_passes=2))
    with pytest.warns(sinkdiv.ConvergenceWarning) as caught:
        criterion(xs, ys)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ["sinkhorn_divergence", "transport_cost", "mmd"])
def test_bad_lists_are_refused_by_name(name):
    function, options = LOSSES[name]
    xs, ys, aa, bb = problems(weighted=True)
    for loss in (lambda *inputs: function(*inputs, **options), MODULES[function](**options)):
        with pytest.raises(ValueError, match=r"y must be a list of 3 tensors.*list of 2"):
            loss(xs, ys[:2])
        with pytest.raises(ValueError, match=r"problem 1 of the list: a must have shape \(3,\)"):
            loss(xs, ys, [aa[0], aa[0], aa[2]], bb)
        with pytest.raises(ValueError, match="empty list"):
            loss([], [])
