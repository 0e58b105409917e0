"""Stochastic encoders: the laws of a code given an image, and their divergence from the prior."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from sinkdiv.generative.tensors import to_device

# Cells of the quadrature of the von Mises–Fisher angle, and how many standard deviations they reach from the mode.
CELLS = 150
REACH = 12.0
LARGEST_CONCENTRATION = 1e6
# Beyond, the quotient that is the derivative is 0/0 in rounding.
SMALLEST_TAIL = 1e-6
NEWTON_STEPS = 4


class Posterior(Protocol):
    """A family of laws on the latent space; an encoder's outputs (n, k) pick one for each image."""

    def outputs(self, dim: int) -> int:
        """How many numbers k the encoder must produce for codes in `dim` dimensions."""

    def mode(self, outputs: Tensor) -> Tensor:
        """The most likely codes, (n, dim)."""

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """One code each, (n, dim), with pathwise derivatives in the outputs."""

    def divergence(self, outputs: Tensor) -> Tensor:
        """KL(posterior | prior) in nats, (n,)."""


class Gaussian:
    """N(μ, diag σ²) against N(0, I) (VAE, Kingma and Welling 2014); outputs are μ and log σ²."""

    def outputs(self, dim: int) -> int:
        return 2 * dim

    def mode(self, outputs: Tensor) -> Tensor:
        return outputs.chunk(2, -1)[0]

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        mean, log_variance = outputs.chunk(2, -1)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return mean + (log_variance / 2).exp() * to_device(noise, mean.device)

    def divergence(self, outputs: Tensor) -> Tensor:
        mean, log_variance = outputs.chunk(2, -1)
        return (mean.square() + log_variance.expm1() - log_variance).sum(-1) / 2


class VonMisesFisher:
    """The law ∝ e^{κ<z,μ>} on S^{d−1} against the uniform one (HVAE, Davidson et al. 2018), d ≥ 2.

    Outputs are μ, normalised, and one number more for κ = softplus + 1, up to 10⁶. The angle θ between z and μ is drawn
    by inverting its distribution function on a quadrature grid, in place of the paper's rejection sampler: no draw is
    lost, and the derivative is the implicit one (Figurnov et al. 2018), ∂θ/∂κ = −∂F/∂κ / p(θ).
    """

    def outputs(self, dim: int) -> int:
        return dim + 1

    def mode(self, outputs: Tensor) -> Tensor:
        return functional.normalize(outputs[:, :-1], dim=-1)

    def concentration(self, outputs: Tensor) -> Tensor:
        """κ, (n,)."""
        return (functional.softplus(outputs[:, -1]) + 1).clamp(max=LARGEST_CONCENTRATION)

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        centre = self.mode(outputs)
        count, dim = centre.shape
        uniform = to_device(torch.rand(count, generator=generator, dtype=torch.float64), centre.device)
        drawn = torch.randn(count, dim, generator=generator, dtype=torch.float64)
        normal = to_device(drawn, centre.device, centre.dtype)
        axis = centre.detach()
        tangent = functional.normalize(normal - (normal * axis).sum(-1, keepdim=True) * axis, dim=-1)
        angle = sample_angle(self.concentration(outputs), uniform, dim)[:, None]
        return _turned(angle.cos() * axis + angle.sin() * tangent, axis, centre)

    def divergence(self, outputs: Tensor) -> Tensor:
        return divergence_from_uniform(self.concentration(outputs), outputs.shape[-1] - 1)


def sample_angle(concentration: Tensor, uniform: Tensor, dim: int) -> Tensor:
    """Angles (n,) to the mode of von Mises–Fisher laws on S^{d−1} of concentrations (n,), from uniform numbers (n,)."""
    law = _Angles(concentration.detach().double(), dim)
    angle = law.quantile(uniform.clamp(SMALLEST_TAIL, 1 - SMALLEST_TAIL))
    return _with_slope(angle, law.slope(angle), concentration)


def divergence_from_uniform(concentration: Tensor, dim: int) -> Tensor:
    """KL(vMF(μ, κ) | uniform on S^{d−1}) for concentrations (n,), in nats (n,)."""
    law = _Angles(concentration.detach().double(), dim)
    return _with_slope(law.divergence(), concentration.detach() * law.variance(), concentration)


class _Angles:
    """The laws p(θ) ∝ e^{κ cos θ} sin^{d−2} θ on [0, π], for κ (n,) in float64, on grids where their mass is.

    Integrals are trapezoids with their first correction, of error h⁴ in the grid's step h of 0.16 standard deviations.
    """

    def __init__(self, kappa: Tensor, dim: int) -> None:
        self.kappa, self.power = kappa[:, None], dim - 2
        # The mode solves κ sin²θ = (d−2) cos θ.
        mode_cos = 2 * kappa / (self.power + torch.sqrt(self.power**2 + 4 * kappa.square()))
        mode = torch.atan2(torch.sqrt(self.power * mode_cos / kappa), mode_cos)
        curvature = kappa * mode_cos + (kappa / mode_cos if self.power else 0.0)
        width = REACH / curvature.sqrt()
        # Not 0 itself, where the logarithm of the sine has no value.
        low, high = torch.maximum(mode - width, 1e-9 * width), (mode + width).clamp(max=math.pi)
        steps = torch.linspace(0, 1, CELLS + 1, dtype=kappa.dtype, device=kappa.device)
        self.mode = mode[:, None]
        self.nodes = torch.lerp(low[:, None], high[:, None], steps)
        self.step = (high - low)[:, None] / CELLS
        self.gap, self.sine, self.density, self.change = self._relative_density(self.nodes)
        self.total = self._integral(self.density, self.change)
        moment = self._integral(self.density * self.gap, self.change * self.gap - self.density * self.sine)
        self.mean_gap = moment / self.total
        """E cos θ − 1, (n, 1)."""

    def quantile(self, uniform: Tensor) -> Tensor:
        """The angles (n,) where the distribution functions take the values (n,)."""
        mass, target = self._cumulated(self.density, self.change), uniform[:, None] * self.total
        index = (torch.searchsorted(mass, target) - 1).clamp(0, CELLS - 1)
        start, *cubic = self._cubic(mass, self.density, index)
        wanted, (first, bend, twist) = target - start, cubic
        place = (wanted / (first + bend + twist)).nan_to_num(0.5).clamp(0, 1)
        for _ in range(NEWTON_STEPS):
            value = place * (first + place * (bend + place * twist))
            slope = first + place * (2 * bend + 3 * place * twist)
            place = (place - (value - wanted) / slope).nan_to_num(0.5).clamp(0, 1)
        return (self.nodes.gather(-1, index) + place * self.step).squeeze(-1)

    def slope(self, angles: Tensor) -> Tensor:
        """∂θ/∂κ (n,) at fixed values of the distribution function: −∂F/∂κ / p, ∂F/∂κ = ∫ (cos φ − E cos) p(φ) dφ."""
        excess, slope = self._excess()
        place = (angles[:, None] - self.nodes[:, :1]) / self.step
        index = place.long().clamp(0, CELLS - 1)
        place = place - index
        start, first, bend, twist = self._cubic(self._cumulated(excess, slope), excess, index)
        change = start + place * (first + place * (bend + place * twist))
        density = self._relative_density(angles[:, None])[2]
        return (-change / density).squeeze(-1)

    def divergence(self) -> Tensor:
        """KL (n,) from the uniform law."""
        uniform = math.log(math.pi) / 2 + math.lgamma((self.power + 1) / 2) - math.lgamma(self.power / 2 + 1)
        peak = -2 * self.kappa * torch.sin(self.mode / 2).square()  # κ (cos θ* − 1)
        if self.power:
            peak = peak + self.power * self.mode.sin().log()
        return (self.kappa * self.mean_gap - self.total.log() - peak + uniform).squeeze(-1)

    def variance(self) -> Tensor:
        """Var cos θ, (n,), which is ∂E cos θ/∂κ."""
        excess, slope = self._excess()
        gap = self.gap - self.mean_gap
        return (self._integral(excess * gap, slope * gap - excess * self.sine) / self.total).squeeze(-1)

    def _excess(self) -> tuple[Tensor, Tensor]:
        """(cos θ − E cos θ) times the density, and its derivative, at the nodes."""
        gap = self.gap - self.mean_gap
        return self.density * gap, self.change * gap - self.density * self.sine

    def _relative_density(self, angles: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """cos θ − 1, sin θ, the density relative to the mode's, and its derivative, each (n, k)."""
        half_sine, mode_half_sine = torch.sin(angles / 2), torch.sin(self.mode / 2)
        sine = 2 * half_sine * torch.cos(angles / 2)
        exponent = -2 * self.kappa * (half_sine - mode_half_sine) * (half_sine + mode_half_sine)
        gap = -2 * half_sine.square()
        rate = -self.kappa * sine
        if self.power:
            exponent = exponent + self.power * torch.log(sine / self.mode.sin())
            rate = rate + self.power * (1 + gap) / sine
        density = exponent.exp()
        return gap, sine, density, density * rate

    def _integral(self, values: Tensor, slopes: Tensor) -> Tensor:
        """∫ over the grid (n, 1) of a function by its values and slopes at the nodes."""
        inner = values.sum(-1, keepdim=True) - (values[:, :1] + values[:, -1:]) / 2
        return self.step * (inner + self.step * (slopes[:, :1] - slopes[:, -1:]) / 12)

    def _cumulated(self, values: Tensor, slopes: Tensor) -> Tensor:
        """∫ from the first node to each."""
        cells = (values[:, 1:] + values[:, :-1]) / 2 + self.step * (slopes[:, :-1] - slopes[:, 1:]) / 12
        return functional.pad(self.step * cells.cumsum(-1), (1, 0))

    def _cubic(self, values: Tensor, slopes: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Coefficients, in the place from 0 to 1, of the cubic through values and slopes at both ends of a cell."""
        start, rise = values.gather(-1, index), values.gather(-1, index + 1) - values.gather(-1, index)
        first, last = self.step * slopes.gather(-1, index), self.step * slopes.gather(-1, index + 1)
        return start, first, 3 * rise - 2 * first - last, first + last - 2 * rise


def _with_slope(values: Tensor, slopes: Tensor, concentration: Tensor) -> Tensor:
    """The values, differentiable in the concentration with the given slopes."""
    return values.to(concentration) + (concentration - concentration.detach()) * slopes.to(concentration)


def _turned(points: Tensor, axis: Tensor, centre: Tensor) -> Tensor:
    """Points (n, d) turned with the sphere by the rotation that takes `axis` to `centre`, the shortest way.

    Of a law around `axis` it makes the same law around `centre`. Used where the two are equal, for its derivative,
    which is bounded: Householder's map, and an orthogonalised basis, have singular ones.
    """
    both = axis + centre
    along = (points * both).sum(-1, keepdim=True) / (1 + (axis * centre).sum(-1, keepdim=True))
    return points - along * both + 2 * (points * axis).sum(-1, keepdim=True) * centre
