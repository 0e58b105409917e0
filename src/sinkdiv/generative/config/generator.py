"""The settings of a Sinkhorn generator (G18)."""

from __future__ import annotations

from dataclasses import dataclass

from sinkdiv.generative.config.run import MOST_DIMENSIONS, RunConfig
from sinkdiv.generative.critic import CriticSettings
from sinkdiv.generative.data import Images, default_latent_dim
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.generator_loss import LEARNED, GeneratorLossSettings
from sinkdiv.generative.networks import OF_GENERATORS
from sinkdiv.generative.networks.dcgan import can_halve
from sinkdiv.generative.networks.perceptron import default_hidden
from sinkdiv.generative.priors import make_prior
from sinkdiv.generative.settings import ABOVE_ZERO, WIDTHS, Draft, at_least, between, one_of, require, setting


def _network(draft: Draft) -> str:
    if "hidden" in draft.chosen:
        return "mlp"
    demanding = draft.images.shape[0] == 3 or draft.cost == LEARNED
    return "dcgan" if "width" in draft.chosen or (demanding and can_halve(draft.images.shape)) else "mlp"


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(GeneratorLossSettings, CriticSettings, RunConfig):
    """A generator trained to minimise a Sinkhorn divergence between its samples and data (G18).

    Attributes:
        prior: of the latents, in the words of `priors.make_prior`.
        latent_dim: their dimension d.
        network: name of the generator's and the critic's architecture.
        hidden: widths of the MLP's hidden layers; the critic mirrors them.
        width: channels of DCGAN's finest stage.
        optimizer: of both networks, adam or rmsprop.
    """

    panel = "Generator"
    model = "generator"
    about = """Train a Sinkhorn generator, then write samples, metrics and a report.

    A network maps latents to images and is trained to minimise the Sinkhorn divergence between a batch of them and a
    batch of data. With --cost learned the cost is a distance of features, which a critic learns to make the divergence
    large. Ctrl-C ends training after the current step with everything saved; --resume goes on.

    Example: [bold]sinkdiv train generator --data mnist-5k --out runs/generator[/bold]
    """

    prior: str = setting("Prior of the latents, as for an autoencoder.", default="normal")
    latent_dim: int = setting(
        "Dimension of the latents.",
        derive=lambda draft: default_latent_dim(draft.data),
        shown="by data",
        check=between(1, MOST_DIMENSIONS),
    )
    network: str = setting(
        f"{', '.join(OF_GENERATORS)}.",
        derive=_network,
        shown="mlp; dcgan for colour, learned cost",
        check=one_of(*OF_GENERATORS),
    )
    hidden: tuple[int, ...] = setting(
        "Widths of the MLP's hidden layers, like 512,512.",
        derive=lambda draft: default_hidden(draft.images.shape),
        shown="by data",
        check=WIDTHS,
        only_with=("network", "mlp"),
    )
    width: int = setting(
        "Channels of DCGAN's finest stage.",
        derive=lambda draft: 64 if draft.images.shape[0] == 3 else 32,
        shown="32; colour: 64",
        check=at_least(1),
        only_with=("network", "dcgan"),
    )
    optimizer: str = setting("adam or rmsprop.", default="adam", check=one_of("adam", "rmsprop"))
    batch_size: int = setting(
        "Images in a step, over all devices.",
        derive=lambda draft: 100 if draft.cost == LEARNED else 200,
        shown="200; learned: 100",
        check=at_least(2),
    )
    lr: float = setting(
        "The optimiser's step size.",
        derive=lambda draft: 5e-4 if draft.cost == LEARNED else 1e-3,
        shown="0.001; learned: 0.0005",
        check=ABOVE_ZERO,
    )

    def check_together(self) -> None:
        super().check_together()
        make_prior(self.prior).check(self.latent_dim)
        # Losses are scaled for float16, and DistributedDataParallel expects gradients of all networks in each step.
        require(self.precision != "float16", "precision", self.precision, "float32 or bfloat16 for a generator")
        require(self.devices == 1 or not self.learned, "devices", self.devices, "1 for --cost learned")

    @classmethod
    def check_images(cls, images: Images) -> None:
        if images.mean_squared_distance == 0:
            raise InputError(f"--data {images.name}: all images are the same")

    @property
    def learned(self) -> bool:
        """Whether there is a critic."""
        return self.cost == LEARNED

    @property
    def turns(self) -> int:
        """The critic's batches, and the generator's own."""
        return 1 + (self.critic_steps if self.learned else 0)

    @property
    def described(self) -> tuple[str, str]:
        latents = f"{self.prior} latents in {self.latent_dim} dimensions"
        return f"Sinkhorn generator on {self.data}", f"{latents}, {self.cost} cost, ε = {self.eps:g}"
