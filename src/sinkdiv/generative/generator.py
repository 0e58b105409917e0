"""The Sinkhorn generator (Genevay, Peyré, Cuturi, AISTATS 2018: G18)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn

import sinkdiv
from sinkdiv.generative.critic import (
    PENALTY_WEIGHT,
    check_bound,
    clip,
    features,
    normalise,
    slope_penalty,
)
from sinkdiv.generative.dcgan import dcgan_critic, dcgan_generator, stages
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.generator_loss import LEARNED, GeneratorLoss
from sinkdiv.generative.networks.perceptron import mlp
from sinkdiv.generative.seeds import Stream, generator
from sinkdiv.generative.watch import TrainingFailure, require_finite

LATENTS: dict[str, Callable[..., Tensor]] = {"uniform": torch.rand, "normal": torch.randn}
NETWORKS = ("mlp", "dcgan")
OPTIMIZERS = ("adam", "rmsprop")
#: Moments of Adam against a critic, which moves too (Gulrajani et al. 2017).
ADVERSARIAL_BETAS = (0.5, 0.9)
#: Which numbers of a step: the latents, or the places of the gradient penalty.
AT_LATENTS, AT_PENALTY = 1, 2


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings:
    """What a Sinkhorn generator is and how it is trained.

    Attributes:
        image_shape: (channels, height, width).
        loss: the divergence, with its ε, cost and derivative.
        latent: "uniform" on [0, 1]^d or "normal", N(0, I).
        latent_dim: d.
        network: "mlp" or "dcgan", of the generator and of the critic.
        hidden: widths of the MLP's hidden layers; the critic mirrors them.
        width: channels of DCGAN's finest stage.
        critic_features: dimension k of the learned cost's features.
        critic_steps: ascent steps of the critic for each step of the generator (G18's n_c), each on a batch of its own.
        critic_bound: "clip" its weights, a gradient "penalty", or "spectral" normalisation.
        optimizer: "adam" or "rmsprop", for both networks.
        lr: its step size.
        seed: of the weights and of all draws.
    """

    image_shape: tuple[int, int, int]
    loss: GeneratorLoss
    latent: str = "uniform"
    latent_dim: int = 2
    network: str = "mlp"
    hidden: tuple[int, ...] = (500, 500)
    width: int = 64
    critic_features: int = 16
    critic_steps: int = 1
    critic_bound: str = "spectral"
    optimizer: str = "adam"
    lr: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("--latent", self.latent, LATENTS)
        _one_of("--network", self.network, NETWORKS)
        _one_of("--optimizer", self.optimizer, OPTIMIZERS)
        check_bound(self.critic_bound)
        if self.network == "dcgan":
            stages(self.image_shape)
        for option, value in (
            ("--latent-dim", self.latent_dim),
            ("--width", self.width),
            ("--critic-features", self.critic_features),
            ("--critic-steps", self.critic_steps),
            ("--hidden", min(self.hidden, default=0)),
        ):
            if value < 1:
                raise InputError(f"{option} {value}: expected at least 1")
        if not 0 < self.lr < math.inf:
            raise InputError(f"--lr {self.lr}: expected more than zero")

    @property
    def learned(self) -> bool:
        """Whether there is a critic."""
        return self.loss.cost == LEARNED

    @property
    def turns(self) -> int:
        """Batches for one step of the generator: the critic's, and its own."""
        return 1 + (self.critic_steps if self.learned else 0)


def _one_of(option: str, value: str, names: Any) -> None:
    if value not in names:
        raise InputError(f"{option} {value}: expected {' or '.join(names)}")


class SinkhornGenerator(lightning.LightningModule):
    """A network that maps latents to samples, trained to minimise a Sinkhorn divergence to batches of data.

    Under a learned cost the batches are used in turns: `critic_steps` of them to move the critic up the divergence, the
    next one to move the generator down. So each step sees fresh data and fresh latents, and `global_step`, which counts
    the steps of all optimisers, counts batches.

    Args:
        settings: what it is.
        network: latents (n, d) to samples (n, p), in the place of the one that the settings describe.
        critic: points (n, p) to features (n, k), likewise.
    """

    def __init__(
        self, settings: GeneratorSettings, network: nn.Module | None = None, critic: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.automatic_optimization = False
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(generator(settings.seed, Stream.NETWORKS).initial_seed())
            self.network = network or make_generator(settings)
            self.critic = (critic or make_critic(settings)) if settings.learned else None
            if self.critic is not None and settings.critic_bound == "spectral":
                normalise(self.critic)

    @property
    def generator_steps(self) -> int:
        """Steps that the generator has made."""
        return self.global_step // self.settings.turns

    def draw_latents(self, count: int, stream: Stream, *position: int) -> Tensor:
        """`count` latents (count, d) on the model's device, a pure function of (seed, stream, position)."""
        source = generator(self.settings.seed, stream, *position)
        return LATENTS[self.settings.latent](count, self.settings.latent_dim, generator=source).to(self.device)

    def draw(self, count: int, stream: Stream, *position: int) -> Tensor:
        """`count` samples (count, p), of latents that are a pure function of (seed, stream, position)."""
        samples: Tensor = self.network(self.draw_latents(count, stream, *position))
        return samples

    def divergence(self, samples: Tensor, data: Tensor) -> Tensor:
        """The loss between samples (n, p) and data (m, p), under the present cost.

        Raises:
            TrainingFailure: when samples or features are not finite, or too large for their costs to be.
        """
        require_finite("samples are", samples, self.global_step)
        if self.critic is not None:
            samples, data = features(self.critic, samples, data)
            require_finite("features are", torch.cat([samples, data]), self.global_step)
        try:
            return self.settings.loss(samples, data)
        except ValueError as error:
            raise TrainingFailure(f"step {self.global_step}: {error}") from error

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        step, optimizers = self.global_step, self._optimizers()
        if (step + 1) % self.settings.turns:
            name, loss = "train/critic", self._critic_step(optimizers[1], batch, step)
        else:
            name, loss = "train/loss", self._generator_step(optimizers[0], batch, step)
        self.log(name, loss, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss

    def _generator_step(self, optimizer: Any, batch: Tensor, step: int) -> Tensor:
        # The critic's weights need no gradients here.
        self.toggle_optimizer(optimizer)
        loss = self.divergence(self.draw(len(batch), Stream.PRIOR, step, AT_LATENTS), batch)
        self._descend(optimizer, loss)
        self.untoggle_optimizer(optimizer)
        return loss.detach()

    def _critic_step(self, optimizer: Any, batch: Tensor, step: int) -> Tensor:
        assert self.critic is not None, "there is a critic's turn only where there is a critic"
        with torch.no_grad():
            samples = self.draw(len(batch), Stream.PRIOR, step, AT_LATENTS)
        reached = self.divergence(samples, batch)
        objective = -reached
        if self.settings.critic_bound == "penalty":
            places = generator(self.settings.seed, Stream.PRIOR, step, AT_PENALTY)
            objective = objective + PENALTY_WEIGHT * slope_penalty(self.critic, samples, batch, places)
        self._descend(optimizer, objective)
        if self.settings.critic_bound == "clip":
            clip(self.critic)
        return reached.detach()

    def _descend(self, optimizer: Any, objective: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(objective)
        optimizer.step()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        # Comparable between costs, unlike the loss; one batch, because its time is quadratic.
        if batch_idx == 0:
            samples = self.draw(len(batch), Stream.EVALUATION, self.current_epoch)
            require_finite("samples are", samples, self.global_step)
            energy = sinkdiv.mmd(samples, batch, kernel="energy")
            self.log("held_out/energy", energy, on_epoch=True, batch_size=len(batch))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        networks = [self.network] if self.critic is None else [self.network, self.critic]
        return [self._optimizer(network) for network in networks]

    def _optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        if self.settings.optimizer == "rmsprop":
            return torch.optim.RMSprop(network.parameters(), lr=self.settings.lr)
        betas = ADVERSARIAL_BETAS if self.settings.learned else (0.9, 0.999)
        return torch.optim.Adam(network.parameters(), lr=self.settings.lr, betas=betas)

    def _optimizers(self) -> list[Any]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]


def make_generator(settings: GeneratorSettings) -> nn.Module:
    """Latents (n, d) to flat images (n, p) in [0, 1]."""
    if settings.network == "dcgan":
        return dcgan_generator(settings.latent_dim, settings.image_shape, settings.width)
    pixels = math.prod(settings.image_shape)
    return nn.Sequential(*mlp([settings.latent_dim, *settings.hidden, pixels]), nn.Sigmoid())


def make_critic(settings: GeneratorSettings) -> nn.Module:
    """Flat images (n, p) to features (n, k)."""
    if settings.network == "dcgan":
        # The other two bounds are on the slope of f at one point at a time.
        batch_norm = settings.critic_bound == "clip"
        return dcgan_critic(settings.image_shape, settings.width, settings.critic_features, batch_norm=batch_norm)
    return mlp([math.prod(settings.image_shape), *settings.hidden[::-1], settings.critic_features])
