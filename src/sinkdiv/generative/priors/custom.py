"""Priors that a user brings: a distribution of `torch.distributions`, or any sampler."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily, transform_to

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.priors.base import Prior, require_dim

Map = Callable[[Tensor], Tensor]
Sampler = Callable[[int, torch.Generator], Tensor]

DRAWS_MEASURED = 10_000


class _Sampled(Prior):
    """A prior known by its draws. The segment between two codes stays on the support only where that is convex."""

    @abstractmethod
    def _draw(self, count: int, dim: int, generator: torch.Generator) -> Tensor: ...

    def sample(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        draws = self._draw(count, dim, generator)
        if draws.shape != (count, dim):
            raise InputError(f"prior: {count} draws have the shape {tuple(draws.shape)}, expected {(count, dim)}")
        return draws.to("cpu", torch.float32)

    def mean_squared_distance(self, dim: int) -> float:
        """The same, estimated from 10,000 draws that are always the same."""
        draws = self.sample(DRAWS_MEASURED, dim, torch.Generator().manual_seed(0)).double()
        return 2 * float(draws.var(0).sum())


class FromDistribution(_Sampled):
    """A distribution of `torch.distributions` with parameters on the CPU.

    Args:
        distribution: over vectors, of event shape (d,); or over numbers, of batch shape (d,) for independent
            coordinates, or of batch shape () for d coordinates alike.
        project: from encoder outputs (n, d) onto the support; `torch.distributions.transform_to` of it if omitted.

    Raises:
        InputError: if the distribution has another shape, or no map onto its support is known.
    """

    def __init__(self, distribution: Distribution, project: Map | None = None) -> None:
        shape = (*distribution.batch_shape, *distribution.event_shape)
        if len(shape) > 1:
            raise InputError(f"prior: {distribution} gives draws of shape {shape}, expected vectors (d,) or numbers")
        self.distribution = distribution
        self._project = project if project is not None else _onto_support(distribution)

    def check(self, dim: int) -> None:
        for own in self._shape:
            require_dim(dim == own, dim, f"{own}, the dimension of {type(self.distribution).__name__}")

    def project(self, outputs: Tensor) -> Tensor:
        return self._project(outputs)

    def _draw(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        # Distributions know the global generator only: it is seeded from ours and put back.
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.distribution.sample(torch.Size([count] if self._shape else [count, dim]))

    @property
    def _shape(self) -> torch.Size:
        """Of one draw."""
        return self.distribution.batch_shape + self.distribution.event_shape


class FromSampler(_Sampled):
    """Any distribution that can be sampled.

    Args:
        sampler: from (count, generator) to draws (count, d), a pure function of the generator's state.
        project: from encoder outputs (n, d) onto the support; the identity if omitted.
    """

    def __init__(self, sampler: Sampler, project: Map | None = None) -> None:
        self._sampler, self._project = sampler, project

    def check(self, dim: int) -> None:
        shape = tuple(self._sampler(2, torch.Generator().manual_seed(0)).shape)
        require_dim(shape == (2, dim), dim, f"the sampler's dimension; two of its draws have the shape {shape}")

    def project(self, outputs: Tensor) -> Tensor:
        return outputs if self._project is None else self._project(outputs)

    def _draw(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        return self._sampler(count, generator)


def _onto_support(distribution: Distribution) -> Map:
    support = distribution.support
    # A mixture has the support of its components, but its constraint has no transform of its own.
    support = getattr(support, "base_constraint", support) if isinstance(distribution, MixtureSameFamily) else support
    try:
        transform: Map = transform_to(support)
    except NotImplementedError as error:
        name = type(distribution).__name__
        raise InputError(f"prior: no map onto the support of {name} is known; give one as project=") from error
    return transform
