"""The priors that have a name."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.priors.base import Prior, require_dim

# Six standard deviations: two neighbouring modes of a mixture share a quarter of a percent of their mass.
SEPARATION = 6.0
MOST_MODES = 1000


class Normal(Prior):
    """Standard normal N(0, I); encoder outputs are codes as they are (P19 §4)."""

    def project(self, outputs: Tensor) -> Tensor:
        return outputs

    def sample(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, dim, generator=generator)

    def mean_squared_distance(self, dim: int) -> float:
        return 2.0 * dim


class Sphere(Prior):
    """Uniform on the unit sphere S^{d−1} ⊂ R^d; encoder outputs are normalised (P19 §4)."""

    def check(self, dim: int) -> None:
        require_dim(dim >= 2, dim, "at least 2 for a sphere")

    def project(self, outputs: Tensor) -> Tensor:
        return functional.normalize(outputs, dim=-1)

    def sample(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        return functional.normalize(torch.randn(count, dim, generator=generator), dim=-1)

    def mean_squared_distance(self, dim: int) -> float:
        return 2.0

    def geodesic(self, start: Tensor, end: Tensor, times: Tensor) -> Tensor:
        return great_arc(start, end, times)


class Uniform(Prior):
    """Uniform on the cube [0, 1]^d (G18 §5); encoder outputs go through a sigmoid."""

    def project(self, outputs: Tensor) -> Tensor:
        return torch.sigmoid(outputs)

    def sample(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        return torch.rand(count, dim, generator=generator)

    def mean_squared_distance(self, dim: int) -> float:
        return dim / 6


class Torus(Prior):
    """Uniform on the product of d/2 unit circles; coordinates 2k and 2k+1 are (cos, sin) of the k-th angle.

    Encoder outputs are normalised pair by pair.
    """

    def check(self, dim: int) -> None:
        require_dim(dim >= 2 and dim % 2 == 0, dim, "an even number for a torus, two for each circle")

    def project(self, outputs: Tensor) -> Tensor:
        return functional.normalize(_pairs(outputs), dim=-1).flatten(-2)

    def sample(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        angles = 2 * math.pi * torch.rand(count, dim // 2, generator=generator)
        return torch.stack([angles.cos(), angles.sin()], -1).flatten(-2)

    def mean_squared_distance(self, dim: int) -> float:
        return float(dim)

    def geodesic(self, start: Tensor, end: Tensor, times: Tensor) -> Tensor:
        return great_arc(_pairs(start), _pairs(end), times).flatten(-2)


class Dirichlet(Prior):
    """Dirichlet(α, …, α) on the simplex of d weights; encoder outputs go through a softmax (P19 §4).

    Args:
        concentration: α. Below 1 the mass gathers at the vertices: P19 took ½ in 10 and ⅕ in 16 dimensions.
    """

    parameter = "concentration"

    def __init__(self, concentration: float = 0.5) -> None:
        if not (0 < concentration < math.inf):
            raise InputError(f"--prior dirichlet:{concentration:g}: expected a concentration above zero")
        self.concentration = concentration

    def check(self, dim: int) -> None:
        require_dim(dim >= 2, dim, "at least 2 for a simplex")

    def project(self, outputs: Tensor) -> Tensor:
        return functional.softmax(outputs, dim=-1)

    def sample(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        # A gamma variable of a small α underflows: its logarithm is that of one of α+1, plus log(uniform)/α.
        larger = torch._standard_gamma(
            torch.full((count, dim), self.concentration + 1, dtype=torch.float64), generator=generator
        )
        uniform = torch.rand(count, dim, generator=generator, dtype=torch.float64)
        return functional.softmax(larger.log() + uniform.log() / self.concentration, dim=-1).float()

    def mean_squared_distance(self, dim: int) -> float:
        return 2 * (1 - 1 / dim) / (dim * self.concentration + 1)

    def landmarks(self, dim: int) -> Tensor:
        """The vertices, where P19 saw the classes of digits gather."""
        return torch.eye(dim)


class Mixture(Prior):
    """Equal parts of K unit Gaussians N(μ_k, I), whose means lie evenly on a circle in the first two coordinates.

    Neighbouring means are six standard deviations apart. Encoder outputs are codes as they are.

    Args:
        modes: K.
    """

    parameter = "number of modes"

    def __init__(self, modes: float = 10) -> None:
        if not (math.isfinite(modes) and modes == int(modes) and 2 <= modes <= MOST_MODES):
            raise InputError(f"--prior mixture:{modes:g}: expected the number of modes, 2 to {MOST_MODES}")
        self.modes = int(modes)

    @property
    def radius(self) -> float:
        """Of the circle of means."""
        return SEPARATION / 2 / math.sin(math.pi / self.modes)

    def check(self, dim: int) -> None:
        require_dim(dim >= 2, dim, "at least 2 for modes on a circle")

    def project(self, outputs: Tensor) -> Tensor:
        return outputs

    def sample(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        modes = torch.randint(self.modes, (count,), generator=generator)
        return torch.randn(count, dim, generator=generator) + self.landmarks(dim)[modes]

    def mean_squared_distance(self, dim: int) -> float:
        return 2 * (dim + self.radius**2)

    def landmarks(self, dim: int) -> Tensor:
        """The means of the modes."""
        angles = torch.arange(self.modes) * (2 * math.pi / self.modes)
        means = torch.zeros(self.modes, dim)
        means[:, 0], means[:, 1] = self.radius * angles.cos(), self.radius * angles.sin()
        return means


def great_arc(start: Tensor, end: Tensor, times: Tensor) -> Tensor:
    """Points (k, ..., d) of the shortest great arcs between unit vectors (..., d), at constant speed.

    Between antipodal points one of the many shortest arcs is taken.
    """
    # Kahan's angle: arccos would lose half the digits near 0 and π.
    angle = 2 * torch.atan2((start - end).norm(dim=-1, keepdim=True), (start + end).norm(dim=-1, keepdim=True))
    tangent = _across(end - start, start)
    lengths = tangent.norm(dim=-1, keepdim=True)
    degenerate = lengths < 8 * torch.finfo(start.dtype).eps
    least = functional.one_hot(start.abs().argmin(-1), start.shape[-1]).to(start)
    tangent = functional.normalize(torch.where(degenerate, _across(least, start), tangent), dim=-1)
    # Once more: the first time most of a short difference is rounding, near antipodes.
    tangent = functional.normalize(_across(tangent, start), dim=-1)
    angles: Tensor = times.to(start).reshape(-1, *[1] * start.ndim) * angle
    return angles.cos() * start + angles.sin() * tangent


def _across(vectors: Tensor, unit: Tensor) -> Tensor:
    """The part of the vectors that is orthogonal to unit vectors."""
    return vectors - (vectors * unit).sum(-1, keepdim=True) * unit


def _pairs(points: Tensor) -> Tensor:
    pairs: Tensor = points.unflatten(-1, (-1, 2))
    return pairs
