"""Learned costs: modules under a named cost, streamed, and functions that return a matrix (G18 §3.2)."""

import copy
import pickle

import pytest
import torch
from torch import nn

import sinkdiv
from problems import assert_slope, cloud, direction, slope, tight, weights

FUNCTIONS = {"transport_cost": sinkdiv.transport_cost, "sinkhorn_divergence": sinkdiv.sinkhorn_divergence}
COSTS = ["sqeuclidean", "euclidean"]
WAYS = {
    "entropic": {},
    "sharp": {"value": "sharp"},
    "unrolled": {"value": "sharp", "derivative": "unrolled", "solver": sinkdiv.Unrolled(iterations=4)},
}


def network(seed=0, inputs=2, outputs=3, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs)).to(dtype)


def matrix_of(module, name):
    """The cost of a module as a function of two clouds."""

    def function(x, y):
        difference = module(x).unsqueeze(-2) - module(y).unsqueeze(-3)
        squared = difference.square().sum(-1)
        return squared if name == "sqeuclidean" else (squared + 1e-30).sqrt()

    return function


@pytest.fixture(params=FUNCTIONS.values(), ids=FUNCTIONS)
def function(request):
    return request.param


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def way(request):
    return request.param


def problem(batch=None):
    return (
        cloud(820, 7, batch=batch), cloud(821, 6, batch=batch) + 0.2,
        weights(820, 7, batch=batch), weights(821, 6, batch=batch),
    )  # fmt: skip


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("rho", [None, 0.5])
def test_parameters_by_differences(function, way, name, rho):
    """Every parameter of a network, and the points before it, at once."""
    module = network()
    x, y, a, b = problem()
    options = {"eps": 0.2, "rho": rho, **tight(), **way}

    def loss(x, y, *parameters):
        named = dict(zip(dict(module.named_parameters()), parameters, strict=True))

        class Called(nn.Module):
            def forward(self, points):
                return torch.func.functional_call(module, named, points)

        return function(x, y, a, b, cost=sinkdiv.FeatureCost(Called(), cost=name), **options)

    tensors = [x, y, *(p.detach() for p in module.parameters())]
    assert_slope(loss, tensors, [direction(822 + i, t.shape) for i, t in enumerate(tensors)])


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("batch", [None, 2])
def test_three_ways_to_give_the_same_cost(function, way, name, batch):
    """A module, its features as points, its matrix as a function: same value, same derivatives in all that is learned.

    The matrix is written with √(·+1e-30), whose derivative at coincident points is 0 too.
    """
    module = network()
    options = {"eps": 0.2, **tight(), **way}
    results = []
    for which in ("module", "features", "function"):
        x, y, a, b = (tensor.requires_grad_() for tensor in problem(batch))
        module.zero_grad()
        if which == "module":
            loss = function(x, y, a, b, cost=sinkdiv.FeatureCost(module, cost=name), **options)
        elif which == "features":
            loss = function(module(x), module(y), a, b, cost=name, **options)
        else:
            loss = function(x, y, a, b, cost=matrix_of(module, name), **options)
        loss.sum().backward()
        results.append([loss.detach(), x.grad, y.grad, a.grad, b.grad, *(p.grad for p in module.parameters())])
    for other in results[1:]:
        for i, (found, expected) in enumerate(zip(other, results[0], strict=True)):
            if i in (3, 4):  # weights under hard marginals: up to a constant
                found, expected = found - found.mean(-1, keepdim=True), expected - expected.mean(-1, keepdim=True)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_a_bare_module_is_a_squared_distance_of_features():
    x, y, a, b = problem()
    module = network()
    bare = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.2, cost=module)
    named = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.2, cost=sinkdiv.FeatureCost(module, cost="sqeuclidean"))
    torch.testing.assert_close(bare, named, rtol=0, atol=0)


@pytest.mark.parametrize("name", COSTS)
def test_blur_and_reach_are_lengths_between_features(name):
    """The features, as points, have the same divergence at the same lengths."""
    x, y, a, b = problem()
    module = network()
    lengths = {"blur": 0.3, "reach": 1.5, **tight()}
    found = sinkdiv.sinkhorn_divergence(x, y, a, b, cost=sinkdiv.FeatureCost(module, cost=name), **lengths)
    expected = sinkdiv.sinkhorn_divergence(module(x), module(y), a, b, cost=name, **lengths)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="eps"):
        sinkdiv.sinkhorn_divergence(x, y, a, b, cost=matrix_of(module, name), blur=0.3)
    with pytest.raises(ValueError, match="reach"):
        sinkdiv.sinkhorn_divergence(x, y, a, b, cost=matrix_of(module, name), eps=0.3, reach=1.0)


def test_features_of_any_shape_are_flattened():
    """A convolution over points that are pictures."""
    module = nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3)).double()
    x, y = cloud(830, 5, 16), cloud(831, 4, 16)
    loss = sinkdiv.sinkhorn_divergence(x, y, eps=0.5, cost=module, value="sharp", **tight())
    grads = torch.autograd.grad(loss, list(module.parameters()))
    flat = [module(points).flatten(1) for points in (x, y)]
    expected = sinkdiv.sinkhorn_divergence(*flat, eps=0.5, value="sharp", **tight())
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    for found, want in zip(grads, torch.autograd.grad(expected, list(module.parameters())), strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=1e-8)


def test_the_module_sees_each_cloud_once():
    """In the divergence too, whose self terms share the features; equal tensors are one cloud."""
    seen = []

    class Watch(nn.Module):
        def forward(self, points):
            seen.append(tuple(points.shape))
            return points

    x, y, a, b = problem()
    sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.2, cost=Watch())
    assert seen == [(7, 2), (6, 2)]
    seen.clear()
    sinkdiv.sinkhorn_divergence(*problem(batch=3), eps=0.2, cost=Watch())
    assert seen == [(21, 2), (18, 2)]
    seen.clear()
    value = sinkdiv.sinkhorn_divergence(x, x, a, a, eps=0.2, cost=Watch())
    assert seen == [(7, 2)]
    assert float(value) == pytest.approx(0, abs=1e-12)


def test_a_module_that_draws_at_random_is_drawn_once():
    """Dropout: the three problems are between the same features, and the gradient belongs to them."""
    module = nn.Sequential(nn.Linear(2, 20), nn.Dropout(0.5)).double()
    x, y, a, b = problem()
    torch.manual_seed(1)
    loss = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.2, cost=module, value="sharp", **tight())
    found = torch.autograd.grad(loss, list(module.parameters()))
    torch.manual_seed(1)
    features = module(x), module(y)
    expected = sinkdiv.sinkhorn_divergence(*features, a, b, eps=0.2, value="sharp", **tight())
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    for have, want in zip(found, torch.autograd.grad(expected, list(module.parameters())), strict=True):
        torch.testing.assert_close(have, want, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", COSTS)
def test_transports_of_features(name):
    """Potentials at new points, products and plans; a map would average features and is refused."""
    x, y, a, b = problem()
    module = network()
    t = sinkdiv.solve(x, y, a, b, eps=0.2, cost=sinkdiv.FeatureCost(module, cost=name), **tight())
    features = sinkdiv.solve(module(x), module(y), a, b, eps=0.2, cost=name, **tight())
    z = cloud(832, 4)
    for side in (0, 1):
        torch.testing.assert_close(t.potentials_at(z, side), features.potentials_at(module(z), side), rtol=0, atol=1e-9)
    torch.testing.assert_close(t.plan(), features.plan(), rtol=0, atol=1e-10)
    torch.testing.assert_close(t.apply(y), features.apply(y), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="features"):
        t.barycentric_map()

    def total(z):
        return (t.potentials_at(z) * torch.arange(4)).sum()

    assert_slope(total, [z], [direction(833, z.shape)], step=1e-4)
    parameter = module[0].weight
    step = direction(834, parameter.shape)
    leaves = list(module.parameters())

    def of_parameter(delta):
        parameter.data.add_(delta * step)
        solved = sinkdiv.solve(x, y, a, b, eps=0.2, cost=sinkdiv.FeatureCost(module, cost=name), **tight())
        result = (
            (solved.potentials_at(z) * torch.arange(4)).sum() + solved.plan().square().sum() + solved.apply(y).sum()
        )
        parameter.data.sub_(delta * step)
        return result

    grads = torch.autograd.grad(of_parameter(0.0), leaves)
    expected = slope(lambda delta: of_parameter(delta).detach())
    assert float((grads[0] * step).sum()) == pytest.approx(expected, abs=1e-7)


def test_second_derivative_in_parameters():
    """The Hessian in a network's first layer, against the difference of gradients."""
    module = network()
    x, y, a, b = problem()
    parameter, step = module[0].weight, direction(835, (5, 2))

    def gradient(create_graph=False):
        loss = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.2, cost=module, value="sharp", **tight())
        return torch.autograd.grad(loss, parameter, create_graph=create_graph)[0]

    (product,) = torch.autograd.grad((gradient(create_graph=True) * step).sum(), parameter)

    def moved(delta):
        parameter.data.add_(delta * step)
        result = float((gradient() * step).sum())
        parameter.data.sub_(delta * step)
        return result

    assert float((product * step).sum()) == pytest.approx(slope(moved), abs=1e-6)


def test_torch_func_reaches_the_parameters():
    """functional_call and torch.func.grad over a dictionary of parameters; jvp agrees."""
    module = network()
    x, y, a, b = problem()
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def loss(parameters):
        def function(x, y):
            fx, fy = (torch.func.functional_call(module, parameters, points) for points in (x, y))
            return (fx.unsqueeze(-2) - fy.unsqueeze(-3)).square().sum(-1)

        return sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.2, cost=function, value="sharp", **tight())

    grads = torch.func.grad(loss)(parameters)
    steps = {name: direction(836, p.shape) for name, p in parameters.items()}
    tangent = torch.func.jvp(loss, (parameters,), (steps,))[1]
    assert float(tangent) == pytest.approx(sum(float((grads[k] * steps[k]).sum()) for k in grads), abs=1e-10)
    learned = sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.2, cost=module, value="sharp", **tight())
    for name, expected in zip(parameters, torch.autograd.grad(learned, list(module.parameters())), strict=True):
        torch.testing.assert_close(grads[name], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("value", ["entropic", "sharp"])
@pytest.mark.parametrize("kind", ["module", "function"])
def test_a_critic_learns_to_tell_samples_apart(value, kind):
    """G18's adversarial cost: ten steps of gradient ascent raise the divergence, in float32, as by default."""
    module = network(dtype=torch.float32)
    x, y = cloud(837, 20, dtype=torch.float32), cloud(838, 20, dtype=torch.float32) + 0.1
    cost = sinkdiv.FeatureCost(module, "euclidean") if kind == "module" else matrix_of(module, "euclidean")
    criterion = sinkdiv.SinkhornDivergence(eps=0.05, cost=cost, value=value)
    ascent = torch.optim.SGD(module.parameters(), lr=0.5, maximize=True)
    values = []
    for _ in range(10):
        ascent.zero_grad()
        loss = criterion(x, y)
        loss.backward()
        ascent.step()
        values.append(float(loss.detach()))
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert values[-1] > 2 * values[0] > 0


def test_frozen_parameters_and_points_without_gradient():
    """Only what requires a gradient gets one, and nothing does if nothing requires it."""
    module = network()
    x, y, a, b = problem()
    module[0].requires_grad_(False)
    sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.2, cost=module, value="sharp").backward()
    assert [p.grad is not None for p in module.parameters()] == [False, False, True, True]
    module.requires_grad_(False)
    assert not sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.2, cost=module).requires_grad
    with torch.no_grad():
        assert not sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.2, cost=network()).requires_grad


def test_copies_of_a_criterion():
    module = network()
    x, y, a, b = problem()
    criterion = sinkdiv.SinkhornDivergence(eps=0.2, cost=sinkdiv.FeatureCost(module, "euclidean"), value="sharp")
    expected = criterion(x, y, a, b)
    for copied in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        torch.testing.assert_close(copied(x, y, a, b), expected, rtol=0, atol=0)


# Refusals.


class Returns(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, points):
        return self.answer(points)


@pytest.mark.parametrize(
    "answer",
    [
        lambda p: p[:-1],
        lambda p: p.sum(),
        lambda p: p[:, 0],
        lambda p: p / 0,
        lambda p: p.long(),
        lambda p: [p],
    ],
)
def test_features_that_are_none_are_refused_by_name(function, answer):
    x, y, a, b = problem()
    with pytest.raises(ValueError, match="module of the cost"):
        function(x, y, a, b, eps=0.2, cost=Returns(answer))


@pytest.mark.parametrize(
    "answer",
    [
        lambda x, y: torch.cdist(x, y).mT,
        lambda x, y: torch.cdist(x, y).sum(),
        lambda x, y: torch.cdist(x, y) * float("nan"),
        lambda x, y: torch.cdist(x, y).long(),
        lambda x, y: None,
    ],
)
def test_matrices_that_are_none_are_refused_by_name(function, answer):
    x, y, a, b = problem()
    with pytest.raises(ValueError, match="cost function"):
        function(x, y, a, b, eps=0.2, cost=answer)


@pytest.mark.parametrize("cost", [3, None, "cosinus", torch.ones(7, 6)])
def test_costs_that_are_none_are_refused_by_name(function, cost):
    x, y, a, b = problem()
    with pytest.raises(ValueError, match="cost"):
        function(x, y, a, b, eps=0.2, cost=cost)
    with pytest.raises(ValueError, match="module"):
        sinkdiv.FeatureCost(cost)
    with pytest.raises(ValueError, match="cost"):
        sinkdiv.FeatureCost(network(), cost="cosinus")
