"""The Sinkhorn autoencoder (Patrini et al., UAI 2019: P19)."""

import math
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional

import sinkdiv
from sinkdiv.generative.config import TrainingConfig
from sinkdiv.generative.networks import make_networks
from sinkdiv.generative.priors import make_prior
from sinkdiv.generative.seeds import Stream, generator

# The latent loss is compared with a fresh random batch at each step: its sampling noise is far above this marginal
# error, and a tighter one only costs passes.
LATENT_TOLERANCE = 1e-2


class SinkhornAutoencoder(lightning.LightningModule):
    """A deterministic encoder and decoder, trained on reconstruction + β · S_ε(codes, prior sample).

    The encoder's codes of a batch are matched with as many draws from the prior by the debiased Sinkhorn divergence
    of the cost |z−z'|². No reparameterisation is needed: the divergence acts on samples. P19 uses the sharp value;
    this is the entropic one, whose gradient is exact by the envelope theorem.

    Args:
        config: the run's settings.
        total_steps: optimiser steps of the whole run; the learning rate falls along half a cosine to zero there.
    """

    def __init__(self, config: TrainingConfig, total_steps: int = 1) -> None:
        super().__init__()
        self.config = config
        self.total_steps = total_steps
        self.prior = make_prior(config.prior)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(generator(config.seed, Stream.NETWORKS).initial_seed())
            self.encoder, self.decoder = make_networks(
                "mlp", config.image_shape, config.latent_dim, config.latent_dim, config.hidden
            )
        self.latent_divergence = sinkdiv.SinkhornDivergence(eps=config.eps, tol=LATENT_TOLERANCE)

    def encode(self, images: Tensor) -> Tensor:
        """Images (n, pixels) in [0, 1] to codes (n, d) on the prior's support."""
        return self.prior.project(self.encoder(images))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (n, d) to images (n, pixels) in [0, 1]: the means of independent Bernoulli pixels."""
        return torch.sigmoid(self.decoder(codes))

    def draw_codes(self, count: int, stream: Stream, *position: int) -> Tensor:
        """`count` prior draws (count, d) on the model's device, a pure function of (seed, stream, position)."""
        source = generator(self.config.seed, stream, *position)
        return self.prior.sample(count, self.config.latent_dim, source).to(self.device)

    def losses(self, images: Tensor, codes_of_prior: Tensor) -> dict[str, Tensor]:
        """Reconstruction (nats per image) and latent divergence (squared latent distance), both scalars."""
        codes = self.encode(images)
        return {
            "reconstruction": bernoulli_nats(self.decoder(codes), images),
            "latent": self.latent_divergence(codes, codes_of_prior),
        }

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        draws = self.draw_codes(len(batch), Stream.PRIOR, self.current_epoch, batch_idx)
        losses = self.losses(batch, draws)
        self.log_dict(
            {f"train/{name}": value.detach() for name, value in losses.items()},
            on_step=False,
            on_epoch=True,
            batch_size=len(batch),
        )
        return losses["reconstruction"] + self.config.beta * losses["latent"]

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        reconstruction = bernoulli_nats(self.decoder(self.encode(batch)), batch)
        self.log("held_out/reconstruction", reconstruction, on_epoch=True, batch_size=len(batch))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.config.lr, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._remaining_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _remaining_rate(self, step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.total_steps)))


def bernoulli_nats(logits: Tensor, images: Tensor) -> Tensor:
    """Cross-entropy of pixels in [0, 1] under Bernoulli logits (n, pixels): summed over pixels, mean over images."""
    return functional.binary_cross_entropy_with_logits(logits, images, reduction="sum") / len(images)
