"""The ways to make an autoencoder's codes follow a prior: the Sinkhorn autoencoder and its baselines, one table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from sinkdiv.generative.distributed import global_batch
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.matching import (
    EnergyMatching,
    GaussianMatching,
    HungarianMatching,
    Matching,
    MMDMatching,
    SinkhornMatching,
    SlicedMatching,
)
from sinkdiv.generative.posteriors import Gaussian, Posterior, VonMisesFisher
from sinkdiv.generative.priors import Prior
from sinkdiv.generative.seeds import Stream
from sinkdiv.generative.transfer import sent

if TYPE_CHECKING:
    from sinkdiv.generative.config import AutoencoderConfig

# Random numbers of the current step, by what they are for.
Source = Callable[[Stream], torch.Generator]


class Method(Protocol):
    """What stands between the encoder's outputs, of at least 32 bits each, and the codes."""

    @property
    def outputs(self) -> int:
        """Numbers that the encoder gives for one image."""

    def encode(self, outputs: Tensor) -> Tensor:
        """Outputs (n, outputs) to codes (n, d), without noise."""

    def sample(self, outputs: Tensor, noise: torch.Generator) -> Tensor:
        """Outputs (n, outputs) to codes (n, d) as the decoder sees them in training: with noise, if there is any."""

    def train(self, outputs: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        """Codes (n, d) to be decoded in training, and the latent loss, a scalar over the batch of all devices."""


class Matched:
    """A deterministic encoder, whose batch of codes is compared with as many draws from the prior (P19, WAE, …).

    Under a product of priors the loss is the sum over the factors (P19 §5).
    """

    def __init__(self, prior: Prior, dim: int, make_matching: Callable[[Prior, int], Matching] | None) -> None:
        self.prior, self.outputs = prior, dim
        self.terms = []
        if make_matching is not None:
            self.terms = [(part, make_matching(factor, part.stop - part.start)) for part, factor in prior.factors(dim)]

    def encode(self, outputs: Tensor) -> Tensor:
        return self.prior.project(outputs)

    def sample(self, outputs: Tensor, noise: torch.Generator) -> Tensor:
        return self.encode(outputs)

    def train(self, outputs: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        codes = self.encode(outputs)
        if not self.terms:
            return codes, codes.new_zeros(())
        everyone = global_batch(codes)
        drawn = self.prior.sample(len(everyone), self.outputs, source(Stream.PRIOR))
        draws = sent(drawn, codes.device, codes.dtype)
        noise = source(Stream.MATCHING)
        losses = [matching(everyone[:, part], draws[:, part], noise) for part, matching in self.terms]
        return codes, torch.stack(losses).sum()


class Variational:
    """A stochastic encoder, each of whose posteriors is drawn towards the prior (VAE, HVAE)."""

    def __init__(self, posterior: Posterior, dim: int) -> None:
        self.posterior, self.outputs = posterior, posterior.outputs(dim)

    def encode(self, outputs: Tensor) -> Tensor:
        return self.posterior.mode(outputs)

    def sample(self, outputs: Tensor, noise: torch.Generator) -> Tensor:
        return self.posterior.sample(outputs, noise)

    def train(self, outputs: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        divergence = self.posterior.divergence(outputs).mean()
        return self.sample(outputs, source(Stream.POSTERIOR)), divergence


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        title: for reports.
        make: settings and prior to the method.
        beta: the weight of the latent loss used where none is given, from the prior's spread E|z−z'|².
        priors: names of the priors it is made for; empty for all.
    """

    title: str
    make: Callable[["AutoencoderConfig", Prior], Method]
    beta: Callable[[float], float]
    priors: tuple[str, ...] = ()


def _matched(
    make_matching: Callable[["AutoencoderConfig", Prior, int], Matching],
) -> Callable[["AutoencoderConfig", Prior], Method]:
    def make(config: "AutoencoderConfig", prior: Prior) -> Method:
        return Matched(prior, config.latent_dim, lambda factor, dim: make_matching(config, factor, dim))

    return make


def _sinkhorn(config: "AutoencoderConfig", prior: Prior, dim: int) -> Matching:
    return SinkhornMatching(
        eps=config.eps,
        cost=config.latent_cost,
        value=config.value,
        debias=config.debias,
        derivative=config.derivative,
        iterations=config.iterations or None,
        rounding=config.rounding,
        warm_start=config.warm_start,
    )


def default_beta(spread: float) -> float:
    """The weight of a loss in units of the latent cost, whose spread is given: 100 (P19) on the unit sphere, of 2."""
    return 200 / spread


METHODS: dict[str, Entry] = {
    "sae": Entry("Sinkhorn autoencoder", _matched(_sinkhorn), default_beta),
    "ae": Entry(
        "autoencoder without a latent loss",
        lambda config, prior: Matched(prior, config.latent_dim, None),
        lambda spread: 0.0,
    ),
    "vae": Entry(
        "variational autoencoder",
        lambda config, prior: Variational(Gaussian(), config.latent_dim),
        lambda spread: 1.0,
        priors=("normal",),
    ),
    "beta-vae": Entry(
        "β-VAE",
        lambda config, prior: Variational(Gaussian(), config.latent_dim),
        lambda spread: 0.1,
        priors=("normal",),
    ),
    "hvae": Entry(
        "hyperspherical VAE",
        lambda config, prior: Variational(VonMisesFisher(), config.latent_dim),
        lambda spread: 1.0,
        priors=("sphere",),
    ),
    "wae": Entry(
        "Wasserstein autoencoder (MMD)",
        _matched(lambda config, prior, dim: MMDMatching(prior.spread(dim))),
        lambda spread: 100.0,
    ),
    "swae": Entry(
        "sliced Wasserstein autoencoder", _matched(lambda config, prior, dim: SlicedMatching()), default_beta
    ),
    "w2gae": Entry(
        "Gaussian Wasserstein autoencoder", _matched(lambda config, prior, dim: GaussianMatching()), default_beta
    ),
    "hae": Entry("Hungarian autoencoder", _matched(lambda config, prior, dim: HungarianMatching()), default_beta),
    "energy": Entry("energy-distance autoencoder", _matched(lambda config, prior, dim: EnergyMatching()), default_beta),
}


def default_prior(name: str) -> str:
    """The prior of a method where none is given: the sphere (P19), unless the method is made for another."""
    made_for = METHODS[name].priors if name in METHODS else ()
    return made_for[0] if made_for else "sphere"


def check_method(name: str, prior: str) -> None:
    """Raise `InputError` when there is no such method, or it is not made for the prior."""
    if name not in METHODS:
        raise InputError(f"--method {name}: unknown method; choose one of {', '.join(METHODS)}")
    made_for = METHODS[name].priors
    if made_for and prior not in made_for:
        raise InputError(f"--prior {prior}: --method {name} is made for {' or '.join(made_for)}")
