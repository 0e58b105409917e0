"""The table of docs/derivatives.md: each of its cells is a finite difference, or a refusal, that is tried here.

The rest of the file varies what the table leaves open: masses, dimensions, costs, batches, weights of zero.
"""

import inspect
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

import sinkdiv
from problems import assert_slope, centred, cloud, direction, tight, weights

DOCUMENT = Path(__file__).parents[2] / "docs" / "derivatives.md"
FUNCTIONS = {"transport_cost": sinkdiv.transport_cost, "sinkhorn_divergence": sinkdiv.sinkhorn_divergence}
VALUES = ["entropic", "sharp"]
DERIVATIVES = ["envelope", "implicit", "unrolled"]
MARGINALS = {"balanced": None, "unbalanced": 0.5, "unbalanced pair": (0.3, 2.0)}
INPUTS = ["x", "y", "a", "b", "module", "matrix", "function"]
ROWS = list(itertools.product(FUNCTIONS, VALUES, DERIVATIVES, MARGINALS))
CHECKED, REFUSED, ABSENT = "✓", "raises", "—"
ITERATIONS = 4
EPS = 0.2
COSTS = ["sqeuclidean", "euclidean"]
WAYS = [("sharp", "implicit"), ("sharp", "unrolled"), ("entropic", "unrolled")]


def documented():
    """The table as {(function, value, derivative, marginals): {input: cell}}."""
    lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines)
    assert header == ["function", "value", "derivative", "marginals", *INPUTS]
    return {tuple(row[:4]): dict(zip(INPUTS, row[4:], strict=True)) for row in rows}


class Features(nn.Module):
    """tanh(p W), of a W that a test moves."""

    def __init__(self, W):
        super().__init__()
        self.W = W

    def forward(self, points):
        return torch.tanh(points @ self.W)


def smooth_distance(W):
    """(x, y) -> √(|(x−y)W|² + 0.1), a cost function of a W that a test moves."""

    def function(x, y):
        difference = (x.unsqueeze(-2) - y.unsqueeze(-3)) @ W
        return (difference.square().sum(-1) + 0.1).sqrt()

    return function


def options(value, derivative, rho):
    unrolled = {"solver": sinkdiv.Unrolled(iterations=ITERATIONS)} if derivative == "unrolled" else {}
    return {"value": value, "derivative": derivative, "eps": EPS, "rho": rho, **tight(), **unrolled}


def problem(rho, mass=1.0, d=2):
    """Points and weights of unequal sizes; of unequal masses too where that is allowed."""
    mass_b = mass if rho is None else 0.6 * mass
    return cloud(600, 6, d), cloud(601, 5, d) + 0.2, weights(600, 6, mass=mass), weights(601, 5, mass=mass_b)


def weight_direction(seed, w, rho):
    """Any direction if the marginals are soft; else one that keeps the mass, the others being infeasible."""
    return (centred if rho is None else direction)(seed, w.shape)


def check(function, column, rho, chosen):
    """The finite difference that stands behind a ✓."""
    x, y, a, b = problem(rho)
    W = 0.7 * direction(602, (2, 3))
    if column in ("x", "y", "a", "b"):
        tensors = [x, y, a, b]
        index = ["x", "y", "a", "b"].index(column)
        directions = [None] * 4
        moved = tensors[index]
        directions[index] = direction(603, moved.shape) if index < 2 else weight_direction(603, moved, rho)
        assert_slope(lambda *inputs: function(*inputs, **chosen), tensors, directions)
        if rho is None and index >= 2:  # both masses grow together
            directions[2], directions[3] = centred(604, a.shape) + 0.2, centred(605, b.shape) + 0.24
            assert_slope(lambda *inputs: function(*inputs, **chosen), tensors, directions)
    elif column == "module":
        for name in COSTS:

            def learned(W, name=name):
                return function(x, y, a, b, cost=sinkdiv.FeatureCost(Features(W), cost=name), **chosen)

            assert_slope(learned, [W], [direction(606, W.shape)])
    elif column == "function":

        def given(W, x, y, a, b):
            return function(x, y, a, b, cost=smooth_distance(W), **chosen)

        along_weights = [weight_direction(607, a, rho), weight_direction(608, b, rho)]
        steps = [direction(seed, t.shape) for seed, t in ((609, W), (610, x), (611, y))]
        assert_slope(given, [W, x, y, a, b], [*steps, *along_weights])
        assert_slope(lambda W: given(W, x, y, a, b), [W], steps[:1])
    else:
        C = cloud(612, 6, 5)

        def of_matrix(C, a, b):
            t = sinkdiv.solve_matrix(C, a, b, eps=EPS, rho=rho, **tight())
            return t.value if chosen["value"] == "entropic" else t.sharp

        assert_slope(lambda C: of_matrix(C, a, b), [C], [direction(613, C.shape)])
        along_weights = [weight_direction(614, a, rho), weight_direction(615, b, rho)]
        assert_slope(of_matrix, [C, a, b], [direction(616, C.shape), *along_weights])


def call(function, column, rho, chosen):
    """The call that stands behind a refusal."""
    x, y, a, b = problem(rho)
    W = direction(602, (2, 3))
    costs = {"module": Features(W), "function": smooth_distance(W)}
    return function(x, y, a, b, cost=costs.get(column, "sqeuclidean"), **chosen)


def test_the_table_has_a_row_for_every_combination():
    assert list(documented()) == ROWS


@pytest.mark.parametrize("row", ROWS, ids=["-".join(row).replace(" ", "_") for row in ROWS])
def test_row(row):
    """Each cell says what happens, neither more nor less."""
    name, value, derivative, marginals = row
    function, rho = FUNCTIONS[name], MARGINALS[marginals]
    for column, cell in documented()[row].items():
        chosen = options(value, derivative, rho)
        if cell == CHECKED:
            check(function, column, rho, chosen)
        elif cell == REFUSED:
            with pytest.raises(NotImplementedError, match="derivative="):
                call(function, column, rho, chosen)
        else:
            assert cell == ABSENT
            # A matrix has no self problems, and its two values have one derivative each.
            assert column == "matrix"
            assert name == "sinkhorn_divergence" or (value, derivative) not in (
                ("entropic", "envelope"),
                ("sharp", "implicit"),
            )
            assert "derivative" not in inspect.signature(sinkdiv.solve_matrix).parameters


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("value", "derivative"), [("entropic", "envelope"), ("sharp", "implicit")])
def test_auto_is_the_exact_derivative_of_each_value(name, value, derivative):
    x, y, a, b = problem(None)
    x.requires_grad_()
    grads = [
        torch.autograd.grad(FUNCTIONS[name](x, y, a, b, eps=EPS, value=value, derivative=which), x)[0]
        for which in ("auto", derivative)
    ]
    torch.testing.assert_close(*grads, rtol=0, atol=0)


# What the table leaves open.


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("rho", MARGINALS.values(), ids=MARGINALS)
def test_everything_at_once_by_every_route(function, route, cost, rho):
    """The sharp value in points and weights together, with masses 1.7 and, where allowed, 1.02."""
    tensors = problem(rho, mass=1.7)
    directions = [direction(620, t.shape) if t.ndim == 2 else weight_direction(621, t, rho) for t in tensors]
    chosen = options("sharp", "implicit", rho)
    assert_slope(lambda *inputs: function(*inputs, cost=cost, **chosen), tensors, directions)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("mass", [0.3, 1.7, 40.0])
@pytest.mark.parametrize(("value", "derivative"), WAYS)
def test_hard_marginals_of_any_mass(function, mass, value, derivative):
    """Along changes of the points, and of the weights with both masses growing together."""
    x, y, a, b = tensors = problem(None, mass)
    grow = [mass * (0.1 * centred(622, w.shape) + 1 / len(w)) for w in (a, b)]
    chosen = options(value, derivative, None)
    found = assert_slope(
        lambda *inputs: function(*inputs, **chosen),
        tensors,
        [direction(623, x.shape), direction(624, y.shape), *grow],
        atol=1e-7 * mass,
    )
    assert abs(found) > 1e-2 * mass


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(("value", "derivative"), [("entropic", "envelope"), *WAYS])
@pytest.mark.parametrize("rho", [0.5, (0.3, 2.0)])
def test_soft_marginals_of_any_masses(function, value, derivative, rho):
    """Masses 3 and 0.4."""
    x, y, a, b = problem(rho)
    tensors = x, y, 3 * a / a.sum(), 0.4 * b / b.sum()
    directions = [direction(625 + i, t.shape) for i, t in enumerate(tensors)]
    directions[2:] = (0.5 * w * d for w, d in zip(tensors[2:], directions[2:], strict=True))
    chosen = options(value, derivative, rho)
    assert_slope(lambda *inputs: function(*inputs, **chosen), tensors, directions)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("d", [1, 2, 9, 20])
@pytest.mark.parametrize(("value", "derivative"), WAYS[:2])
def test_equal_weights_in_any_dimension(function, cost, d, value, derivative):
    """Weights omitted."""
    x, y, _, _ = problem(None, d=d)
    chosen = {**options(value, derivative, None), "eps": 0.2 * d}
    directions = [direction(630, x.shape), direction(631, y.shape)]
    assert_slope(lambda *points: function(*points, cost=cost, **chosen), [x, y], directions)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("rho", [None, 0.5])
@pytest.mark.parametrize(("value", "derivative"), [("entropic", "envelope"), *WAYS])
def test_one_tensor_in_several_places(function, rho, value, derivative):
    """The two clouds, weights and a factor are functions of one tensor: every part arrives, once each."""
    x, a = cloud(632, 6), weights(632, 6)

    def of_one(x, a):
        return x.sum() * function(x, 0.5 * x.flip(0) + 0.1, a, a.flip(0), **options(value, derivative, rho))

    assert_slope(of_one, [x, a], [direction(633, x.shape), centred(634, a.shape)])


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("rho", MARGINALS.values(), ids=MARGINALS)
@pytest.mark.parametrize(("value", "derivative"), WAYS)
def test_the_same_tensor_on_both_sides(route, cost, rho, value, derivative):
    """OT(α,α) has the derivative of both sides, found by the symmetric solver or not; the divergence has none."""
    x, a = cloud(635, 6), weights(635, 6)
    chosen = options(value, derivative, rho)

    def itself(x, a):
        return sinkdiv.transport_cost(x, x, a, a, cost=cost, **chosen)

    assert_slope(itself, [x, a], [direction(636, x.shape), centred(637, a.shape)])
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(sinkdiv.sinkhorn_divergence(leaf, leaf, a, a, cost=cost, **chosen), leaf)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-8)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("rho", MARGINALS.values(), ids=MARGINALS)
@pytest.mark.parametrize("kind", [*COSTS, "module", "function"])
@pytest.mark.parametrize(("value", "derivative"), [("entropic", "envelope"), *WAYS])
def test_a_batch_equals_a_loop(function, rho, kind, value, derivative):
    x, y = cloud(640, 6, batch=2), cloud(641, 5, batch=2)
    a, b = weights(640, 6, batch=2), weights(641, 5, batch=2)
    W = 0.7 * direction(642, (2, 3))
    factor = torch.tensor([1.0, -2.0], dtype=torch.float64)
    made = {"module": lambda W: sinkdiv.FeatureCost(Features(W)), "function": smooth_distance}.get(kind, lambda W: kind)

    def gradients(values):
        leaves = [t.clone().requires_grad_() for t in (x, y, a, b, W)]
        value_of = values(*leaves[:4], cost=made(leaves[4]), **options(value, derivative, rho))
        return torch.autograd.grad((factor * value_of).sum(), leaves[:4] if kind in COSTS else leaves)

    def loop(*batch, **chosen):
        return torch.stack([function(*one, **chosen) for one in zip(*batch, strict=True)])

    for found, expected in zip(gradients(function), gradients(loop), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("value", "derivative"), [("entropic", "envelope"), *WAYS])
@pytest.mark.parametrize("kind", ["sqeuclidean", "module", "function"])
def test_a_list_equals_a_loop(value, derivative, kind):
    """Clouds of different sizes in one call."""
    W = 0.7 * direction(643, (2, 3))
    made = {"module": lambda W: sinkdiv.FeatureCost(Features(W)), "function": smooth_distance}.get(kind, lambda W: kind)
    chosen = options(value, derivative, None)
    clouds = [(cloud(644, 6), cloud(645, 5)), (cloud(646, 3), cloud(647, 4))]
    results = []
    for together in (True, False):
        leaves = [tuple(t.clone().requires_grad_() for t in pair) for pair in clouds]
        cost = made(W)
        if together:
            xs, ys = zip(*leaves, strict=True)
            values = sinkdiv.sinkhorn_divergence(list(xs), list(ys), cost=cost, **chosen)
        else:
            values = torch.stack([sinkdiv.sinkhorn_divergence(*pair, cost=cost, **chosen) for pair in leaves])
        values[0].mul(3).sub(values[1]).backward()
        results.append([t.grad for pair in leaves for t in pair])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


# Weights of zero.


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("rho", [None, 0.5])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(("value", "derivative"), WAYS)
@pytest.mark.parametrize("side", [0, 1])
def test_derivative_as_mass_arrives_at_a_weight_of_zero(function, rho, cost, value, derivative, side):
    """The right derivative, <∇, δ_new − δ_0>, by a one-sided difference of second order with steps of 1e-6."""
    tensors = [cloud(650, 6), cloud(651, 5) + 0.2, weights(650, 6), weights(651, 5)]
    tensors[side] = torch.cat([tensors[side], tensors[side].new_tensor([[1.2, 0.5]])])
    tensors[2 + side] = torch.cat([tensors[2 + side], tensors[2 + side].new_zeros(1)])
    step = torch.zeros_like(tensors[2 + side])
    step[-1], step[0] = 1, -1
    chosen = {"cost": cost, **options(value, derivative, rho)}

    def at(w):
        return function(*tensors[: 2 + side], w, *tensors[3 + side :], **chosen)

    leaf = tensors[2 + side].clone().requires_grad_()
    (grad,) = torch.autograd.grad(at(leaf), leaf)
    h = 1e-6
    start, one, two = (float(at(tensors[2 + side] + k * h * step)) for k in range(3))
    assert float(grad @ step) == pytest.approx((-3 * start + 4 * one - two) / (2 * h), abs=1e-5)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("rho", [None, 0.5])
@pytest.mark.parametrize(("value", "derivative"), WAYS)
def test_points_of_weight_zero_change_nothing(function, route, rho, value, derivative):
    """Moving them does nothing; the other derivatives are those without them, for weights up to a constant."""
    x, y, a, b = problem(rho)
    more = [
        torch.cat([x, x.new_tensor([[5.0, 5.0]])]),
        torch.cat([y, y.new_tensor([[0.5, 0.5], [-3.0, 0.0]])]),
        torch.cat([a, a.new_zeros(1)]),
        torch.cat([b, b.new_zeros(2)]),
    ]
    results = []
    for inputs in ((x, y, a, b), more):
        leaves = [t.clone().requires_grad_() for t in inputs]
        results.append(torch.autograd.grad(function(*leaves, **options(value, derivative, rho)), leaves))
    for expected, found in zip(*results, strict=True):
        assert torch.isfinite(found).all()
        moved = found[: len(expected)] - expected
        if found.ndim == 2:
            assert float(found[len(expected) :].abs().max()) < 1e-15
        elif rho is None:
            moved = moved - moved.mean()
        torch.testing.assert_close(moved, torch.zeros_like(moved), rtol=0, atol=1e-9)
