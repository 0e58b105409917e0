"""Distributions that a latent space is trained to follow, each with the map that sends an encoder's output there."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from sinkdiv.generative.errors import InputError


class Prior(Protocol):
    """A distribution on R^d that can be sampled, and the map from R^d onto its support."""

    @property
    def default_eps(self) -> float:
        """A regularisation of the latent divergence that trained well, in units of |z−z'|²."""

    @property
    def default_beta(self) -> float:
        """A weight of the latent divergence that trained well."""

    def project(self, outputs: Tensor) -> Tensor:
        """Encoder outputs (n, d) to codes (n, d) on the support, differentiably."""

    def sample(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        """`count` independent draws, (count, dim), float32 on the CPU."""


class Sphere:
    """Uniform on the unit sphere S^{d−1} ⊂ R^d; encoder outputs are normalised (P19 §4)."""

    default_eps = 0.5
    default_beta = 100.0

    def project(self, outputs: Tensor) -> Tensor:
        return functional.normalize(outputs, dim=-1)

    def sample(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        return functional.normalize(torch.randn(count, dim, generator=generator), dim=-1)


class Normal:
    """Standard normal N(0, I); encoder outputs are codes as they are (P19 §4)."""

    # Squared distances are about d times those on the sphere: 10 times, in the 10 dimensions used for digits.
    default_eps = 5.0
    default_beta = 10.0

    def project(self, outputs: Tensor) -> Tensor:
        return outputs

    def sample(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, dim, generator=generator)


PRIORS: dict[str, type[Prior]] = {"sphere": Sphere, "normal": Normal}


def make_prior(name: str) -> Prior:
    """The prior called `name`; raises `InputError` with the known names."""
    if name not in PRIORS:
        raise InputError(f"--prior {name}: unknown prior; choose one of {', '.join(PRIORS)}")
    return PRIORS[name]()
