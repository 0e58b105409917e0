"""The Sinkhorn generator (Genevay, Peyré, Cuturi, AISTATS 2018: G18)."""

from typing import Any

import torch
from torch import Tensor, nn

import sinkdiv
from sinkdiv.generative.config import GeneratorConfig
from sinkdiv.generative.critic import PENALTY_WEIGHT, clip, features, normalise, slope_penalty
from sinkdiv.generative.distributed import global_batch, own_part, process_count
from sinkdiv.generative.failures import require_distances
from sinkdiv.generative.generator_loss import GeneratorLoss
from sinkdiv.generative.models.base import Model
from sinkdiv.generative.networks import generator_networks
from sinkdiv.generative.priors import make_prior
from sinkdiv.generative.seeds import Stream, generator, initial_weights
from sinkdiv.generative.tensors import to_device
from sinkdiv.transforms import full_precision

#: Moments of Adam against a critic, which moves too (Gulrajani et al. 2017).
ADVERSARIAL_BETAS = (0.5, 0.9)
#: Which numbers of a step: the latents, or the places of the gradient penalty.
AT_LATENTS, AT_PENALTY = 1, 2
#: Places of the optimisers.
GENERATOR, CRITIC = 0, 1


class SinkhornGenerator(Model):
    """A network that maps latents to samples, trained to minimise a Sinkhorn divergence to batches of data.

    Under a learned cost the batches are used in turns: `critic_steps` of them to move the critic up the divergence, the
    next one to move the generator down. So each step sees fresh data and fresh latents, and `global_step`, which counts
    the steps of all optimisers, counts batches.

    Args:
        config: the run's settings.
        total_steps: batches of the whole run; the learning rate falls along half a cosine to zero there.
        network: latents (n, d) to samples (n, p), in the place of the one that the settings describe.
    """

    config: GeneratorConfig

    def __init__(self, config: GeneratorConfig, total_steps: int = 1, network: nn.Module | None = None) -> None:
        super().__init__(config, total_steps)
        self.automatic_optimization = False
        self.prior = make_prior(config.prior)
        self.loss = GeneratorLoss(config)
        architecture = generator_networks(config.network)
        shape, sizes = config.image_shape, (config.hidden, config.width)
        with initial_weights(config.seed):
            self.network = network or architecture.make(shape, config.latent_dim, *sizes)
            self.critic = None
            if config.learned:
                # The other two bounds are on the slope of f at one point at a time.
                batch_norm = config.critic_bound == "clip"
                self.critic = architecture.make_critic(shape, config.critic_features, *sizes, batch_norm)
                if config.critic_bound == "spectral":
                    normalise(self.critic)

    def draw_latents(self, count: int, stream: Stream, *position: int) -> Tensor:
        """`count` latents (count, d) on the model's device, a pure function of (seed, stream, position)."""
        source = generator(self.config.seed, stream, *position)
        return to_device(self.prior.sample(count, self.config.latent_dim, source), self.device)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (n, d) to samples (n, p)."""
        samples: Tensor = self.network(latents)
        return samples.float()

    def draw(self, count: int, stream: Stream, *position: int) -> Tensor:
        return self.decode(self.draw_latents(count, stream, *position))

    def divergence(self, samples: Tensor, data: Tensor) -> Tensor:
        """The loss between samples (n, p) and data (m, p) of all processes, under the present cost.

        Raises:
            TrainingFailure: when samples or features are not finite, or too large for their distances to be.
        """
        samples, data = global_batch(samples), global_batch(data)
        seen = {"samples": samples, "data": data}
        if self.critic is not None:
            samples, data = (part.float() for part in features(self.critic, samples, data))
            seen["features"] = torch.cat([samples, data])
        require_distances(seen)
        with full_precision(samples):
            return self.loss(samples, data)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        step = self.global_step
        if (step + 1) % self.config.turns:
            self.log_losses({"critic": self._critic_step(batch, step)}, len(batch))
        else:
            self.log_losses({"loss": self._generator_step(batch, step)}, len(batch))

    def _generator_step(self, batch: Tensor, step: int) -> Tensor:
        optimizer, schedule = self._moving(GENERATOR)
        # The critic's weights need no gradients here.
        self.toggle_optimizer(optimizer)
        loss = self.divergence(self.samples_of_step(len(batch), step), batch)
        self._descend(optimizer, schedule, loss)
        self.untoggle_optimizer(optimizer)
        return loss

    def _critic_step(self, batch: Tensor, step: int) -> Tensor:
        assert self.critic is not None, "there is a critic's turn only where there is a critic"
        with torch.no_grad():
            samples = self.samples_of_step(len(batch), step)
        reached = self.divergence(samples, batch)
        objective = -reached
        if self.config.critic_bound == "penalty":
            places = generator(self.config.seed, Stream.PRIOR, step, AT_PENALTY)
            objective = objective + PENALTY_WEIGHT * slope_penalty(self.critic, samples, batch, places)
        self._descend(*self._moving(CRITIC), objective)
        if self.config.critic_bound == "clip":
            clip(self.critic)
        return reached

    def samples_of_step(self, count: int, step: int) -> Tensor:
        """The samples (count, p) of a step that are this process', of as many from each that shares the batch."""
        latents = self.draw_latents(count * process_count(), Stream.PRIOR, step, AT_LATENTS)
        return self.decode(own_part(latents))

    def _moving(self, which: int) -> tuple[Any, Any]:
        """The optimiser and the schedule of one network."""
        # Lightning gives lists of several, but the only one as it is.
        found = self.optimizers(), self.lr_schedulers()
        optimizer, schedule = (one[which] if isinstance(one, list) else one for one in found)
        return optimizer, schedule

    def _descend(self, optimizer: Any, schedule: Any, objective: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(objective)
        optimizer.step()
        schedule.step()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        # Comparable between costs, unlike the loss; one batch, because its time is quadratic.
        if batch_idx == 0:
            samples = self.draw(len(batch), Stream.EVALUATION, self.current_epoch)
            require_distances({"samples": samples})
            energy = sinkdiv.mmd(samples, batch, kernel="energy")
            self.log("held_out/energy", energy, on_epoch=True, batch_size=len(batch), sync_dist=True)

    def configure_optimizers(self) -> Any:
        def rate(_: int) -> float:
            return self._remaining_rate(self.global_step)

        networks = [self.network] if self.critic is None else [self.network, self.critic]
        optimizers = [self._optimizer(network) for network in networks]
        return optimizers, [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]

    def _optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        if self.config.optimizer == "rmsprop":
            return torch.optim.RMSprop(network.parameters(), lr=self.config.lr)
        betas = ADVERSARIAL_BETAS if self.config.learned else (0.9, 0.999)
        return torch.optim.Adam(network.parameters(), lr=self.config.lr, betas=betas)
