"""Priors: their laws, supports, maps onto them, geodesics, and the grammar of their names."""

import math
import re
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Binomial,
    Categorical,
    Distribution,
    Independent,
    LogNormal,
    MixtureSameFamily,
    Normal,
    constraints,
)
from torch.distributions import Dirichlet as TorchDirichlet

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.priors import FromDistribution, FromSampler, Prior, Product, make_prior

COUNT = 40_000
NAMED = ["normal", "sphere", "uniform", "torus", "dirichlet", "dirichlet:0.2", "mixture", "mixture:3"]


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def beta_squared() -> FromDistribution:
    return FromDistribution(Beta(torch.full((4,), 2.0), torch.full((4,), 3.0)))


PRIORS: dict[str, tuple[Prior, int]] = {
    **{name: (make_prior(name), 4) for name in NAMED},
    "sphere@3*normal@2*torus@4": (make_prior("sphere@3*normal@2*torus@4"), 9),
    "beta": (beta_squared(), 4),
    "sampler": (FromSampler(lambda count, g: torch.rand(count, 4, generator=g), torch.sigmoid), 4),
}


@pytest.fixture(params=PRIORS)
def case(request: pytest.FixtureRequest) -> tuple[Prior, int]:
    return PRIORS[request.param]


def gap_from_support(name: str, points: Tensor) -> float:
    """How far points (..., d) are from the support."""
    if name == "sphere":
        return float((points.norm(dim=-1) - 1).abs().max())
    if name == "torus":
        return float((points.unflatten(-1, (-1, 2)).norm(dim=-1) - 1).abs().max())
    outside = max(float(-points.min()), 0.0)
    if name.startswith("dirichlet"):
        return max(outside, float((points.sum(-1) - 1).abs().max()))
    return max(outside, float(points.max()) - 1)


def test_draws_have_the_form_and_the_distance_they_promise(case: tuple[Prior, int]) -> None:
    prior, dim = case
    prior.check(dim)
    draws = prior.sample(COUNT, dim, source())
    assert draws.shape == (COUNT, dim)
    assert draws.dtype == torch.float32
    assert torch.equal(draws, prior.sample(COUNT, dim, source()))
    # E|z−z'|² of independent pairs, within five standard errors.
    squares = (draws[::2] - draws[1::2]).double().square().sum(1)
    error = float(squares.std()) / math.sqrt(len(squares))
    assert float(squares.mean()) == pytest.approx(prior.mean_squared_distance(dim), abs=5 * error)


@pytest.mark.parametrize(
    ("name", "mean", "variance"),
    [
        ("normal", 0.0, 1.0),
        ("sphere", 0.0, 1 / 4),
        ("uniform", 1 / 2, 1 / 12),
        ("torus", 0.0, 1 / 2),
        ("dirichlet:0.2", 1 / 4, (1 / 4) * (3 / 4) / 1.8),
    ],
)
def test_coordinates_have_their_mean_and_variance_and_no_other_correlation(
    name: str, mean: float, variance: float
) -> None:
    draws = make_prior(name).sample(COUNT, 4, source(1)).double()
    assert (draws.mean(0) - mean).abs().max() < 5 * math.sqrt(variance / COUNT)
    # Weights on a simplex sum to one, so that each pair has covariance −variance/(d−1).
    expected = torch.eye(4).double() * variance
    if name.startswith("dirichlet"):
        expected = variance * (4 * torch.eye(4).double() - 1) / 3
    assert (torch.cov(draws.T) - expected).abs().max() < 5 * math.sqrt(3 / COUNT) * variance


def test_dirichlet_is_the_library_s() -> None:
    """By the mean of log z, ψ(α) − ψ(dα), which sees the small weights."""
    draws = make_prior("dirichlet:0.5").sample(COUNT, 10, source(2)).double()
    logs = draws.clamp(min=1e-30).log().mean()
    expected = torch.digamma(torch.tensor(0.5)) - torch.digamma(torch.tensor(5.0))
    assert float(logs) == pytest.approx(float(expected), abs=5 * 2.3 / math.sqrt(10 * COUNT))


def test_dirichlet_of_a_tiny_concentration_draws_vertices() -> None:
    draws = make_prior("dirichlet:1e-4").sample(1000, 3, source(2))
    assert bool(torch.isfinite(draws).all())
    assert (draws.max(1).values > 0.999).float().mean() > 0.99


def test_mixture_has_equal_modes_on_a_circle_six_deviations_apart() -> None:
    draws = make_prior("mixture:5").sample(COUNT, 3, source(3)).double()
    angles = 2 * math.pi * torch.arange(5).double() / 5
    centres = torch.stack([angles.cos(), angles.sin()], 1) * 3 / math.sin(math.pi / 5)
    assert float((centres[0] - centres[1]).norm()) == pytest.approx(6)
    nearest = torch.cdist(draws[:, :2], centres).argmin(1)
    parts = torch.bincount(nearest, minlength=5) / COUNT
    assert (parts - 0.2).abs().max() < 5 * math.sqrt(0.16 / COUNT)
    residual = draws - torch.nn.functional.pad(centres, (0, 1))[nearest]
    # A 3-sigma cut between modes moves the variance by less than 2 %.
    assert (torch.cov(residual.T) - torch.eye(3)).abs().max() < 0.03


@pytest.mark.parametrize("name", ["sphere", "uniform", "torus", "dirichlet", "dirichlet:0.2"])
def test_draws_codes_and_geodesics_lie_on_the_support(name: str) -> None:
    prior = make_prior(name)
    draws = prior.sample(1000, 6, source(4))
    codes = prior.project(3 * torch.randn(1000, 6, generator=source(5)))
    path = prior.geodesic(draws, codes, torch.linspace(0, 1, 7))
    assert path.shape == (7, 1000, 6)
    for points in (draws, codes, path):
        assert gap_from_support(name, points) < 1e-6


def test_projection_is_differentiable(case: tuple[Prior, int]) -> None:
    prior, dim = case
    outputs = torch.randn(5, dim, generator=source(6), dtype=torch.float64, requires_grad=True)
    assert prior.project(outputs).shape == (5, dim)
    assert torch.autograd.gradcheck(prior.project, outputs)


def test_geodesics_hit_their_ends_at_constant_speed(case: tuple[Prior, int]) -> None:
    prior, dim = case
    start, end = (prior.sample(50, dim, source(seed)).double() for seed in (7, 8))
    times = torch.linspace(0, 1, 101, dtype=torch.float64)
    path = prior.geodesic(start, end, times)
    # Draws are float32: unit vectors up to 1e-7.
    torch.testing.assert_close(path[0], start, atol=1e-6, rtol=0)
    torch.testing.assert_close(path[-1], end, atol=1e-6, rtol=0)
    steps = (path[1:] - path[:-1]).norm(dim=-1)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dim", [2, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_great_arcs_between_coincident_near_and_antipodal_points(dim: int, dtype: torch.dtype) -> None:
    prior = make_prior("sphere")
    start = prior.sample(20, dim, source(9)).to(dtype)
    start = start / start.norm(dim=1, keepdim=True)
    eps = torch.finfo(dtype).eps
    times = torch.linspace(0, 1, 11, dtype=dtype)
    torch.testing.assert_close(prior.geodesic(start, start, times), start.expand(11, -1, -1))
    tangent = torch.linalg.qr(
        torch.cat([start[:, :, None], torch.randn(20, dim, 1, generator=source(10)).to(dtype)], 2)
    )
    across = tangent.Q[:, :, 1]
    for angle in (1e-3, math.pi / 2, math.pi - 1e-3, math.pi):
        end = math.cos(angle) * start + math.sin(angle) * across
        path = prior.geodesic(start, end, times)
        assert (path.norm(dim=-1) - 1).abs().max() < 20 * eps
        torch.testing.assert_close(path[-1], end, atol=40 * eps, rtol=0)
        chord = 2 * math.sin(angle / 20)
        torch.testing.assert_close((path[1:] - path[:-1]).norm(dim=-1), torch.full((10, 20), chord, dtype=dtype),
                                   atol=40 * eps, rtol=40 * eps)  # fmt: skip


def test_a_torus_is_a_product_of_circles() -> None:
    torus, circles = make_prior("torus"), make_prior("sphere@2*sphere@2")
    assert torus.mean_squared_distance(4) == circles.mean_squared_distance(4)
    start, end = (torus.sample(9, 4, source(seed)) for seed in (0, 1))
    times = torch.linspace(0, 1, 5)
    torch.testing.assert_close(torus.geodesic(start, end, times), circles.geodesic(start, end, times))


def test_products_concatenate_their_factors() -> None:
    product = make_prior("sphere@10*normal@3")
    blocks = [(block, type(factor).__name__) for block, factor in product.factors(13)]
    assert blocks == [(slice(0, 10), "Sphere"), (slice(10, 13), "Normal")]
    assert product.mean_squared_distance(13) == 2 + 6
    outputs = torch.randn(4, 13, generator=source())
    torch.testing.assert_close(product.project(outputs)[:, 10:], outputs[:, 10:])
    assert (product.project(outputs)[:, :10].norm(dim=1) - 1).abs().max() < 1e-6
    nested = Product((product, 13), (make_prior("uniform"), 2))
    assert [block for block, _ in nested.factors(15)] == [slice(0, 10), slice(10, 13), slice(13, 15)]
    assert make_prior("sphere").factors(5)[0][0] == slice(0, 5)


@pytest.mark.parametrize(
    ("distribution", "dim"),
    [
        (Beta(torch.full((4,), 2.0), torch.full((4,), 3.0)), 4),
        (TorchDirichlet(torch.tensor([1.0, 2.0, 3.0])), 3),
        (LogNormal(0.0, 0.5), 6),
        (Normal(torch.tensor(1.0), torch.tensor(2.0)), 2),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else type(value).__name__,
)
def test_a_distribution_serves_as_prior(distribution: Distribution, dim: int) -> None:
    prior = FromDistribution(distribution)
    prior.check(dim)
    state = torch.random.get_rng_state()
    draws = prior.sample(COUNT, dim, source(11))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(draws, prior.sample(COUNT, dim, source(12)))
    mean, variance = (value.expand(dim).double() for value in (distribution.mean, distribution.variance))
    assert ((draws.double().mean(0) - mean).abs() < 5 * (variance / COUNT).sqrt()).all()
    # 10,000 draws know a variance to a few percent.
    assert prior.mean_squared_distance(dim) == pytest.approx(2 * float(variance.sum()), rel=0.1)
    support = constraints.independent(distribution.support, 1 - distribution.support.event_dim)
    assert bool(support.check(prior.project(torch.randn(100, dim, generator=source(13)))).all())


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("Laplace(0,1)", scipy.stats.laplace()),
        ("Laplace(-1, 2e-1)", scipy.stats.laplace(-1, 0.2)),
        ("Beta(2,3)", scipy.stats.beta(2, 3)),
        ("Gamma(2,4)", scipy.stats.gamma(2, scale=1 / 4)),
        ("Uniform(-1,3)", scipy.stats.uniform(-1, 4)),
        ("StudentT(5)", scipy.stats.t(5)),
        ("Gumbel(1,2)", scipy.stats.gumbel_r(1, 2)),
    ],
)
def test_a_distributions_name_and_numbers_are_its_law_in_each_coordinate(text: str, law: Any) -> None:
    """Kolmogorov's test of every coordinate, and of what the first two have in common, at a level of 1e-4."""
    prior = make_prior(text)
    draws = prior.sample(4000, 3, source(21))
    for column in draws.T.numpy():
        assert scipy.stats.kstest(column, law.cdf).pvalue > 1e-4
    assert scipy.stats.spearmanr(draws[:, 0], draws[:, 1]).pvalue > 1e-4
    codes = prior.project(torch.randn(100, 3, generator=source(22)))
    assert float(codes.min()) >= law.support()[0]
    assert float(codes.max()) <= law.support()[1]


def test_distributions_are_factors_of_products() -> None:
    prior = make_prior("Beta(2,2)@4*sphere@6")
    draws = prior.sample(1000, 10, source(23))
    assert bool(((draws[:, :4] > 0) & (draws[:, :4] < 1)).all())
    torch.testing.assert_close(draws[:, 4:].norm(dim=1), torch.ones(1000))
    # Var Beta(2, 2) = 1/20.
    assert prior.mean_squared_distance(10) == pytest.approx(2 * 4 / 20 + 2, rel=0.02)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gamma", "--prior gamma: unknown prior; choose one of normal, sphere, uniform, torus, dirichlet, mixture"),
        ("", "unknown prior"),
        ("sphere:3", "sphere takes no parameter"),
        ("dirichlet:", "'' is no concentration"),
        ("dirichlet:-1", "above zero"),
        ("dirichlet:nan", "above zero"),
        ("mixture:two", "'two' is no number of modes"),
        ("mixture:2.5", "2 to 1000"),
        ("mixture:inf", "2 to 1000"),
        ("sphere@10*normal", "each factor needs its dimension"),
        ("sphere@-3", "each factor needs its dimension"),
        ("sphere@1*normal@3", "--latent-dim 1: expected at least 2"),
        ("sphere@3*gamma@2", "unknown prior"),
        ("Laplace(0,1", "unknown prior"),
        ("Laplace(0,1):2", "unknown prior"),
        ("Lapl(0,1)", "there is no Lapl in torch.distributions"),
        ("kl_divergence(0,1)", "there is no kl_divergence in"),
        ("Distribution(1)", "there is no Distribution in"),
        ("__import__(1)", "there is no __import__ in"),
        ("Laplace(0,os)", "expected numbers in Laplace(0,os)"),
        ("Laplace()", "expected numbers in"),
        ("Laplace(0,-1)", "Laplace(loc, scale) cannot be made of these numbers"),
        ("Laplace(0)", "Laplace(loc, scale) cannot be made of these numbers"),
        ("Laplace(0,inf)", "Laplace(loc, scale) cannot be made of these numbers"),
        ("Beta(2,2,0)", "Beta(concentration1, concentration0) cannot be made of these numbers"),
        ("Wishart(3)", "cannot be made of these numbers"),
        ("Poisson(3)", "Poisson is not a distribution of one real number"),
        ("sphere@3*Bernoulli(0.5)@2", "Bernoulli is not a distribution of one real number"),
        ("Cauchy(0,1)", "Cauchy(0,1) has no finite variance"),
        ("StudentT(2)", "StudentT(2) has no finite variance"),
    ],
)
def test_wrong_names_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        make_prior(text)


@pytest.mark.parametrize(
    ("prior", "dim"),
    [
        (make_prior("sphere"), 1),
        (make_prior("torus"), 5),
        (make_prior("dirichlet"), 1),
        (make_prior("mixture"), 1),
        (make_prior("normal"), 0),
        (make_prior("sphere@3*normal@2"), 6),
        (beta_squared(), 3),
        (FromSampler(lambda count, g: torch.rand(count, 4, generator=g)), 3),
    ],
)
def test_wrong_dimensions_name_the_option(prior: Prior, dim: int) -> None:
    with pytest.raises(InputError, match=f"--latent-dim {dim}: expected"):
        prior.check(dim)


def test_distributions_that_cannot_serve_say_so() -> None:
    with pytest.raises(InputError, match="no map onto the support of Binomial"):
        FromDistribution(Binomial(10, torch.full((3,), 0.5)))
    with pytest.raises(InputError, match="expected vectors"):
        FromDistribution(Normal(torch.zeros(2, 3), torch.ones(2, 3)))


def test_a_mixture_of_torch_distributions_has_the_support_of_its_components() -> None:
    components = Independent(Normal(torch.zeros(3, 2), torch.ones(3, 2)), 1)
    prior = FromDistribution(MixtureSameFamily(Categorical(torch.ones(3)), components))
    outputs = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(prior.project(outputs), outputs)


def test_sphere_prior_is_uniform_on_the_unit_sphere() -> None:
    draws = make_prior("sphere").sample(20_000, 5, source())
    torch.testing.assert_close(draws.norm(dim=1), torch.ones(20_000))
    # Uniform on S^4: mean zero, covariance I/5; the tolerances are five standard errors.
    assert draws.mean(0).abs().max() < 5 * (0.2 / 20_000) ** 0.5
    assert (draws.T @ draws / 20_000 - torch.eye(5) / 5).abs().max() < 5 * (0.12 / 20_000) ** 0.5


@pytest.mark.parametrize("name", ["normal", "sphere"])
def test_codes_lie_on_the_support_and_carry_gradients(name: str) -> None:
    prior = make_prior(name)
    draws = prior.sample(50, 3, source(1))
    torch.testing.assert_close(prior.project(draws), draws)
    outputs = torch.randn(50, 3, generator=source(2), requires_grad=True)
    prior.project(outputs)[:, 0].sum().backward()
    assert outputs.grad is not None
    assert outputs.grad.abs().sum() > 0
