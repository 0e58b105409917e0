"""The settings of an autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sinkdiv.generative.config.run import MOST_DIMENSIONS, RunConfig
from sinkdiv.generative.data import default_latent_dim
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.latent_losses.sinkhorn import LatentSinkhornSettings, cost_of_two_draws
from sinkdiv.generative.methods import METHODS, check_prior, default_prior, find_method
from sinkdiv.generative.networks import OF_AUTOENCODERS, autoencoder_networks
from sinkdiv.generative.priors import PRIORS, Sphere, make_prior
from sinkdiv.generative.settings import (
    NOT_NEGATIVE,
    WIDTHS,
    Alias,
    Draft,
    between,
    one_of,
    require,
    setting,
)


def _latent_dim(draft: Draft) -> int:
    return make_prior(draft.prior).own_dim or default_latent_dim(draft.data)


def _eps_of_blur(blur: float, chosen: Mapping[str, Any]) -> float:
    if not blur > 0:
        raise InputError(f"--blur {blur}: expected more than zero")
    return blur if chosen.get("latent_cost") == "euclidean" else 2 * blur * blur


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(LatentSinkhornSettings, RunConfig):
    """An autoencoder whose codes follow a prior.

    Attributes:
        method: how the codes are made to follow it: a name in `methods.METHODS`.
        prior: what they follow, in the words of `priors.make_prior`.
        latent_dim: dimension d of the codes.
        network: name of the encoder and decoder.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        likelihood: of the pixels; bernoulli counts cross-entropy, gaussian squared errors, summed over pixels.
        beta: weight of the latent loss against the reconstruction.
    """

    panel = "Autoencoder"
    model = "autoencoder"
    about = """Train a Sinkhorn autoencoder or one of its baselines, then write samples, metrics and a report.

    A deterministic encoder and decoder are trained on reconstruction plus the debiased Sinkhorn divergence between
    codes and prior; --method puts another latent loss in its place. Ctrl-C ends it after the current step with
    everything saved; --resume goes on.

    Example: [bold]sinkdiv train autoencoder --data mnist-5k --prior sphere --out runs/sae[/bold]
    """
    aliases: ClassVar[Mapping[str, Alias]] = {
        "blur": Alias("eps", "The same as a length: eps = 2 blur², for euclidean eps = blur.", _eps_of_blur),
    }

    method: str = setting(f"sae, or a baseline: {', '.join(name for name in METHODS if name != 'sae')}.", default="sae")
    prior: str = setting(
        f"Prior of the codes: {', '.join(PRIORS)}, some with a number (dirichlet:0.5); a distribution of "
        "torch.distributions like Laplace(0,1); or a product like sphere@10*normal@3.",
        derive=lambda draft: default_prior(draft.method),
        shown="by method; sae: sphere",
    )
    latent_dim: int = setting(
        "Dimension of the codes.", derive=_latent_dim, shown="by data", check=between(1, MOST_DIMENSIONS)
    )
    network: str = setting(f"{', '.join(OF_AUTOENCODERS)}.", default="mlp", check=one_of(*OF_AUTOENCODERS))
    hidden: tuple[int, ...] = setting(
        "Widths of the hidden layers, like 512,512.",
        derive=lambda draft: autoencoder_networks(draft.network).default_hidden(draft.images.shape),
        shown="by data",
        check=WIDTHS,
    )
    likelihood: str = setting(
        "bernoulli or gaussian.",
        derive=lambda draft: "bernoulli" if draft.images.shape[0] == 1 else "gaussian",
        shown="gaussian for colour",
        check=one_of("bernoulli", "gaussian"),
    )
    beta: float = setting(
        "Weight of the latent loss.",
        derive=lambda draft: find_method(draft.method).beta(cost_of_two_draws(draft)),
        shown="by method; sae: 100 sphere",
        check=NOT_NEGATIVE,
    )

    def check_together(self) -> None:
        super().check_together()
        prior = make_prior(self.prior)
        prior.check(self.latent_dim)
        check_prior(self.method, self.prior)
        if self.latent_cost == "geodesic":
            spheres = all(isinstance(factor, Sphere) for _, factor in prior.factors(self.latent_dim))
            require(spheres, "latent_cost", "geodesic", f"--prior sphere, not {self.prior}")

    @property
    def trains_samples(self) -> bool:
        return self.beta > 0

    @property
    def described(self) -> tuple[str, str]:
        title = METHODS[self.method].title
        regularised = f", ε = {self.eps:g}" if self.method == "sae" else ""
        return (
            f"{title[0].upper()}{title[1:]} on {self.data}",
            f"{self.prior} prior in {self.latent_dim} dimensions, β = {self.beta:g}{regularised}",
        )
