"""The ways to make an autoencoder's codes follow a prior: the Sinkhorn autoencoder and its baselines.

A new method is a latent loss or a posterior, and a line in `METHODS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sinkdiv.generative.distributed import global_batch
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.latent_losses import (
    EnergyLoss,
    GaussianLoss,
    HungarianLoss,
    LatentLoss,
    LatentSinkhornSettings,
    MMDLoss,
    SinkhornLoss,
    SlicedLoss,
)
from sinkdiv.generative.posteriors import Gaussian, Posterior, VonMisesFisher
from sinkdiv.generative.priors import Prior
from sinkdiv.generative.seeds import Stream
from sinkdiv.generative.tensors import to_device

#: Random numbers of the current step, by what they are for.
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

    def codes_and_loss(self, outputs: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        """Codes (n, d) to be decoded in training, and the latent loss, a scalar over the batch of all devices."""


class Deterministic:
    """A deterministic encoder, whose batch of codes is compared with as many draws from the prior (P19, WAE, …).

    Under a product of priors the loss is the sum over the factors (P19 §5).
    """

    def __init__(self, prior: Prior, dim: int, make_loss: Callable[[Prior, int], LatentLoss] | None) -> None:
        self.prior, self.outputs = prior, dim
        self.terms = []
        if make_loss is not None:
            self.terms = [(part, make_loss(factor, part.stop - part.start)) for part, factor in prior.factors(dim)]

    def encode(self, outputs: Tensor) -> Tensor:
        return self.prior.project(outputs)

    def sample(self, outputs: Tensor, noise: torch.Generator) -> Tensor:
        return self.encode(outputs)

    def codes_and_loss(self, outputs: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        codes = self.encode(outputs)
        if not self.terms:
            return codes, codes.new_zeros(())
        everyone = global_batch(codes)
        drawn = self.prior.sample(len(everyone), self.outputs, source(Stream.PRIOR))
        draws = to_device(drawn, codes.device, codes.dtype)
        noise = source(Stream.LATENT_LOSS)
        losses = [loss(everyone[:, part], draws[:, part], noise) for part, loss in self.terms]
        return codes, torch.stack(losses).sum()


class Variational:
    """A stochastic encoder, each of whose posteriors is drawn towards the prior (VAE, HVAE)."""

    def __init__(self, posterior: Posterior, dim: int) -> None:
        self.posterior, self.outputs = posterior, posterior.outputs(dim)

    def encode(self, outputs: Tensor) -> Tensor:
        return self.posterior.mode(outputs)

    def sample(self, outputs: Tensor, noise: torch.Generator) -> Tensor:
        return self.posterior.sample(outputs, noise)

    def codes_and_loss(self, outputs: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        divergence = self.posterior.divergence(outputs).mean()
        return self.sample(outputs, source(Stream.POSTERIOR)), divergence


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        title: for reports.
        make: the run's settings, the prior and the dimension of codes, to the method.
        beta: the weight of the latent loss used where none is given, from the mean cost of two draws of the prior.
        priors: names of the priors it is made for; empty for all.
    """

    title: str
    make: Callable[[LatentSinkhornSettings, Prior, int], Method]
    beta: Callable[[float], float]
    priors: tuple[str, ...] = ()


def paper_beta(cost: float) -> float:
    """The weight of a loss in units of the latent cost, whose mean is given: 100 (P19) on the unit sphere, of 2."""
    return 200 / cost


def compared(title: str, make_loss: Callable[[Prior, int], LatentLoss], beta: Callable[[float], float]) -> Entry:
    """The row of a method that compares codes with draws by a loss made for a prior and its dimension."""
    return Entry(title, lambda settings, prior, dim: Deterministic(prior, dim, make_loss), beta)


def variational(title: str, posterior: Posterior, beta: float, prior: str) -> Entry:
    """The row of a method that draws each image's posterior towards the one prior that it knows."""
    return Entry(title, lambda settings, _, dim: Variational(posterior, dim), lambda _: beta, (prior,))


def _sinkhorn(settings: LatentSinkhornSettings, prior: Prior, dim: int) -> Method:
    return Deterministic(prior, dim, lambda factor, part: SinkhornLoss(settings))


def _without_loss(settings: LatentSinkhornSettings, prior: Prior, dim: int) -> Method:
    return Deterministic(prior, dim, None)


METHODS: dict[str, Entry] = {
    "sae": Entry("Sinkhorn autoencoder", _sinkhorn, paper_beta),
    "ae": Entry("autoencoder without a latent loss", _without_loss, lambda cost: 0.0),
    "vae": variational("variational autoencoder", Gaussian(), 1.0, "normal"),
    "beta-vae": variational("β-VAE", Gaussian(), 0.1, "normal"),
    "hvae": variational("hyperspherical VAE", VonMisesFisher(), 1.0, "sphere"),
    "wae": compared(
        "Wasserstein autoencoder (MMD)",
        lambda prior, dim: MMDLoss(prior.mean_squared_distance(dim)),
        lambda cost: 100.0,
    ),
    "swae": compared("sliced Wasserstein autoencoder", lambda prior, dim: SlicedLoss(), paper_beta),
    "w2gae": compared("Gaussian Wasserstein autoencoder", lambda prior, dim: GaussianLoss(), paper_beta),
    "hae": compared("Hungarian autoencoder", lambda prior, dim: HungarianLoss(), paper_beta),
    "energy": compared("energy-distance autoencoder", lambda prior, dim: EnergyLoss(), paper_beta),
}


def find_method(name: str) -> Entry:
    """The row of the method called `name`; raises `InputError` when there is none."""
    if name not in METHODS:
        raise InputError(f"--method {name}: unknown method; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def default_prior(name: str) -> str:
    """The prior of a method where none is given: the sphere (P19), unless the method is made for another."""
    made_for = find_method(name).priors
    return made_for[0] if made_for else "sphere"


def check_prior(name: str, prior: str) -> None:
    """Raise `InputError` when there is no such method, or it is not made for the prior."""
    made_for = find_method(name).priors
    if made_for and prior not in made_for:
        raise InputError(f"--prior {prior}: --method {name} is made for {' or '.join(made_for)}")
