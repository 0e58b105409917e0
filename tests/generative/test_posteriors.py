"""Stochastic encoders against SciPy, closed forms, numerical integrals and finite differences."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from sinkdiv.generative import posteriors
from sinkdiv.generative.posteriors import Gaussian, VonMisesFisher, divergence_from_uniform, sample_angle

COUNT = 10_000
CONCENTRATIONS = [1.0, 3.0, 30.0, 300.0, 1e4]
DIMS = [2, 3, 4, 10, 64]


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def outputs_for(direction: Tensor, concentration: float) -> Tensor:
    """Encoder outputs (d+1,) of a von Mises–Fisher law; softplus inverted."""
    below = math.log(math.expm1(concentration - 1)) if 1 < concentration < 30 else concentration - 1
    return torch.cat([direction, torch.tensor([below], dtype=direction.dtype)])


def mean_cosine(concentration: float, dim: int) -> float:
    """A_d(κ) = I_{d/2}(κ) / I_{d/2−1}(κ)."""
    ratio = scipy.special.ive(dim / 2, concentration) / scipy.special.ive(dim / 2 - 1, concentration)
    return float(ratio)


def test_gaussian_divergence_is_the_library_s_and_its_samples_have_its_moments() -> None:
    outputs = torch.randn(6, 8, generator=source(), dtype=torch.float64)
    posterior = Gaussian()
    assert posterior.outputs(4) == 8
    mean, log_variance = outputs[:, :4], outputs[:, 4:]
    law = Independent(Normal(mean, (log_variance / 2).exp()), 1)
    standard = Independent(Normal(torch.zeros(4).double(), torch.ones(4).double()), 1)
    torch.testing.assert_close(posterior.divergence(outputs), kl_divergence(law, standard))
    torch.testing.assert_close(posterior.mode(outputs), mean)
    draws = posterior.sample(outputs[:1].expand(COUNT, -1), source(1))
    deviation = (log_variance[0] / 2).exp()
    assert ((draws.mean(0) - mean[0]).abs() < 5 * deviation / math.sqrt(COUNT)).all()
    assert ((draws.std(0) / deviation - 1).abs() < 5 / math.sqrt(2 * COUNT)).all()


def test_gaussian_gradients() -> None:
    outputs = torch.randn(3, 4, generator=source(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda o: Gaussian().sample(o, source(2)), outputs)
    assert torch.autograd.gradcheck(Gaussian().divergence, outputs)


@pytest.mark.parametrize("dim", DIMS)
def test_divergence_from_the_uniform_law_is_scipy_s(dim: int) -> None:
    """KL = log area − entropy."""
    log_area = math.log(2) + dim / 2 * math.log(math.pi) - scipy.special.gammaln(dim / 2)
    axis = np.eye(dim)[0]
    expected = [log_area - scipy.stats.vonmises_fisher(axis, kappa).entropy() for kappa in CONCENTRATIONS]
    found = divergence_from_uniform(torch.tensor(CONCENTRATIONS, dtype=torch.float64), dim)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dim", DIMS)
def test_slope_of_the_divergence(dim: int) -> None:
    """d KL/dκ = κ A'(κ) with A' = 1 − A² − (d−1)A/κ; the closed form cancels where κ is large."""
    kappas = [kappa for kappa in CONCENTRATIONS if kappa < 1e3]
    kappa = torch.tensor(kappas, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(divergence_from_uniform(kappa, dim).sum(), kappa)
    means = np.array([mean_cosine(k, dim) for k in kappas])
    expected = np.array(kappas) * (1 - means**2 - (dim - 1) * means / np.array(kappas))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_angles_follow_the_law(dim: int, concentration: float) -> None:
    """Kolmogorov–Smirnov against the density integrated by SciPy, at the level 1e-4."""
    uniform = torch.rand(4000, generator=source(3), dtype=torch.float64)
    angles = sample_angle(torch.full((4000,), concentration, dtype=torch.float64), uniform, dim).numpy()
    grid = np.linspace(0, min(math.pi, 14 * math.sqrt(max(dim, 4) / concentration)), 200_001)[1:]
    logs = concentration * (np.cos(grid) - 1) + (dim - 2) * np.log(np.abs(np.sin(grid)))
    density = np.exp(logs - logs.max())
    distribution = np.cumsum(density) / density.sum()
    statistic = scipy.stats.kstest(angles, lambda theta: np.interp(theta, grid, distribution)).statistic
    assert statistic < 2.2 / math.sqrt(4000)
    # A grid of 200,000 midpoints knows the distribution to 1e-4 of itself.
    np.testing.assert_allclose(np.interp(angles, grid, distribution), uniform, atol=2e-4)


@pytest.mark.parametrize("dim", DIMS)
def test_slope_of_an_angle_is_its_finite_difference(dim: int) -> None:
    kappa = torch.tensor(CONCENTRATIONS, dtype=torch.float64)
    for level in (0.01, 0.3, 0.9, 0.999):
        uniform = torch.full_like(kappa, level)
        leaf = kappa.clone().requires_grad_()
        (slope,) = torch.autograd.grad(sample_angle(leaf, uniform, dim).sum(), leaf)
        step = 1e-3 * kappa
        difference = sample_angle(kappa + step, uniform, dim) - sample_angle(kappa - step, uniform, dim)
        torch.testing.assert_close(slope, difference / (2 * step), rtol=2e-4, atol=0)


@pytest.mark.parametrize(("dim", "concentration"), [(2, 3.0), (3, 1.5), (3, 100.0), (10, 20.0)])
def test_samples_have_the_law_s_moments(dim: int, concentration: float) -> None:
    direction = torch.randn(dim, generator=source(4), dtype=torch.float64)
    posterior = VonMisesFisher()
    outputs = outputs_for(direction, concentration).expand(COUNT, -1)
    assert posterior.outputs(dim) == dim + 1
    centre = posterior.mode(outputs)[0]
    torch.testing.assert_close(centre, direction / direction.norm())
    draws = posterior.sample(outputs, source(5))
    torch.testing.assert_close(draws.norm(dim=1), torch.ones(COUNT).double())
    mean = mean_cosine(concentration, dim)
    assert (draws.mean(0) - mean * centre).abs().max() < 5 / math.sqrt(COUNT)
    # E zzᵀ = A/κ I + (1 − d A/κ) μμᵀ.
    second = mean / concentration * torch.eye(dim).double() + (1 - dim * mean / concentration) * torch.outer(
        centre, centre
    )
    assert (draws.T @ draws / COUNT - second).abs().max() < 5 / math.sqrt(COUNT)


def test_the_gradient_of_a_mean_is_exact_on_average() -> None:
    """E z = A(κ) μ, so d E<v,z> = <v, A (I−μμᵀ) dμ> + A' <v,μ> dκ: from pathwise gradients of many draws."""
    dim, concentration = 4, 5.0
    posterior, v = VonMisesFisher(), torch.tensor([0.3, -1.0, 0.5, 0.2]).double()
    leaf = outputs_for(torch.randn(dim, generator=source(6), dtype=torch.float64), concentration).requires_grad_()
    (posterior.sample(leaf.expand(COUNT, -1), source(7)) @ v).mean().backward()
    other = leaf.detach().clone().requires_grad_()
    centre, kappa = posterior.mode(other[None])[0], posterior.concentration(other[None])[0]
    mean = mean_cosine(concentration, dim)
    slope = 1 - mean**2 - (dim - 1) * mean / concentration
    (mean * centre @ v + slope * (kappa - kappa.detach()) * (centre.detach() @ v)).backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, other.grad, atol=5 / math.sqrt(COUNT), rtol=0)


def test_the_turn_of_the_sphere_is_a_rotation_with_right_derivatives() -> None:
    axis, centre, first, second = torch.nn.functional.normalize(
        torch.randn(4, 6, 3, generator=source(8)).double(), dim=-1
    )
    turn = posteriors._turned
    torch.testing.assert_close(turn(axis, axis, centre), centre)
    torch.testing.assert_close(turn(first, axis, axis), first)
    before, after = (first * second).sum(-1), (turn(first, axis, centre) * turn(second, axis, centre)).sum(-1)
    torch.testing.assert_close(after, before)
    assert torch.autograd.gradcheck(lambda c: turn(first, axis, c), centre.requires_grad_())


@pytest.mark.parametrize("posterior", [Gaussian(), VonMisesFisher()])
def test_float32_batches_of_extreme_outputs_stay_finite(posterior: Gaussian | VonMisesFisher) -> None:
    outputs = 10 * torch.randn(500, posterior.outputs(5), generator=source(9))
    if isinstance(posterior, VonMisesFisher):
        outputs[:, -1] = torch.logspace(0, 8, 500)
    outputs.requires_grad_()
    draws, divergences = posterior.sample(outputs, source(10)), posterior.divergence(outputs)
    assert draws.dtype == divergences.dtype == torch.float32
    (draws.sum() + divergences.sum()).backward()
    for tensor in (draws, divergences, outputs.grad):
        assert tensor is not None
        assert bool(torch.isfinite(tensor).all())
