"""Autoencoders whose codes follow a prior: the Sinkhorn autoencoder (Patrini et al. 2019: P19) and its baselines."""

import torch
from torch import Tensor
from torch.nn import functional

from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.distributed import process_rank
from sinkdiv.generative.failures import require_distances
from sinkdiv.generative.methods import METHODS
from sinkdiv.generative.models.base import Model
from sinkdiv.generative.networks import autoencoder_networks
from sinkdiv.generative.priors import Prior, make_prior
from sinkdiv.generative.seeds import Stream, generator, initial_weights
from sinkdiv.generative.tensors import at_least_float32, to_device
from sinkdiv.transforms import full_precision


class Autoencoder(Model):
    """An encoder and a decoder, trained on reconstruction + β · latent loss.

    What the latent loss is, and whether codes are drawn from a posterior or computed, is the method's; all methods
    share networks, optimiser and data, so that their results compare.

    Args:
        config: the run's settings.
        total_steps: optimiser steps of the whole run; the learning rate falls along half a cosine to zero there.
        prior: takes the place of the one that `config.prior` names, for priors that have no name, such as
            `priors.FromSampler`. It is in no file: what was trained with it has to be read back with it.
    """

    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig, total_steps: int = 1, prior: Prior | None = None) -> None:
        super().__init__(config, total_steps)
        self.prior = make_prior(config.prior) if prior is None else prior
        self.prior.check(config.latent_dim)
        self.method = METHODS[config.method].make(config, self.prior, config.latent_dim)
        with initial_weights(config.seed):
            self.encoder, self.decoder = autoencoder_networks(config.network).make(
                config.image_shape, self.method.outputs, config.latent_dim, config.hidden
            )

    def encode(self, images: Tensor) -> Tensor:
        """Images (n, pixels) in [0, 1] to codes (n, d) on the prior's support, without noise."""
        outputs = at_least_float32(self.encoder(images))
        with full_precision(outputs):
            return self.method.encode(outputs)

    def sample_codes(self, images: Tensor, noise: torch.Generator) -> Tensor:
        """Images (n, pixels) to codes (n, d) as the decoder saw them in training: of their posteriors, if it has any.

        Their distribution over images is the one that should be the prior.
        """
        outputs = at_least_float32(self.encoder(images))
        with full_precision(outputs):
            return self.method.sample(outputs, noise)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (n, d) to images (n, pixels) in [0, 1]: the means of the pixels."""
        return torch.sigmoid(self.decoder(codes))

    def draw_codes(self, count: int, stream: Stream, *position: int) -> Tensor:
        """`count` prior draws (count, d) on the model's device, a pure function of (seed, stream, position)."""
        source = generator(self.config.seed, stream, *position)
        return to_device(self.prior.sample(count, self.config.latent_dim, source), self.device)

    def draw(self, count: int, stream: Stream, *position: int) -> Tensor:
        return self.decode(self.draw_codes(count, stream, *position))

    def reconstruction_loss(self, codes: Tensor, images: Tensor) -> Tensor:
        """How far decoded `codes` (n, d) are from `images` (n, pixels): the likelihood's loss, mean over images."""
        logits = at_least_float32(self.decoder(codes))
        if self.config.likelihood == "bernoulli":
            return bernoulli_nats(logits, images)
        return (torch.sigmoid(logits) - images).square().sum(1).mean()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        def source(stream: Stream) -> torch.Generator:
            # Noise of single images differs between processes; what concerns the whole batch is the same in all.
            own = (process_rank(),) if stream is Stream.POSTERIOR else ()
            return generator(self.config.seed, stream, self.current_epoch, batch_idx, *own)

        outputs = at_least_float32(self.encoder(batch))
        require_distances({"the encoder's outputs": outputs})
        with full_precision(outputs):
            codes, latent = self.method.codes_and_loss(outputs, source)
        reconstruction = self.reconstruction_loss(codes, batch)
        loss = reconstruction + self.config.beta * latent
        self.log_losses({"reconstruction": reconstruction, "latent": latent}, len(batch))
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        loss = self.reconstruction_loss(self.encode(batch), batch)
        self.log("held_out/reconstruction", loss, on_epoch=True, batch_size=len(batch), sync_dist=True)


def bernoulli_nats(logits: Tensor, images: Tensor) -> Tensor:
    """Cross-entropy of pixels in [0, 1] under Bernoulli logits (n, pixels): summed over pixels, mean over images."""
    return functional.binary_cross_entropy_with_logits(logits, images, reduction="sum") / len(images)
