"""How good a trained model is: on images it has not seen, beside an untrained model and the data itself."""

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric

import sinkdiv
from sinkdiv.generative.autoencoder import SinkhornAutoencoder, bernoulli_nats
from sinkdiv.generative.data import Images
from sinkdiv.generative.seeds import Stream, generator

MOST_IMAGES_COMPARED = 1000
BATCH = 1000
# The blur of the divergence between images is this root-mean-square difference of grey levels per pixel. At half of it,
# 500 images are too few: the sampling noise of real digits against real digits exceeds the score of blurred ones.
IMAGE_BLUR_PER_PIXEL = 0.2
COLUMNS = ("model", "untrained", "training_data")


def score(model: SinkhornAutoencoder, images: Images) -> dict[str, Any]:
    """The scores of `model` (on the CPU), as plain numbers ready for JSON.

    Three columns with the same rows: `model`; `untrained`, the same networks before training; `training_data`, what
    a perfect model could hope for: training images in the place of samples and held-out images, prior draws in the
    place of codes. Rows:

    - `reconstruction_nats_per_image`: Bernoulli cross-entropy, summed over pixels (P19's RE, but of grey images)
    - `reconstruction_mse_per_pixel`
    - `sample_mmd_energy_x1000`: 1000 · ½|samples − held-out|² in the energy kernel, diagonal terms included
    - `sample_sinkhorn_divergence`: the same two sets, S_ε of |x−y|² with its certified interval
    - `latent_mmd_energy_x1000`: codes of held-out images against prior draws
    """
    untrained = SinkhornAutoencoder(model.config).eval().requires_grad_(False)
    count = min(MOST_IMAGES_COMPARED, len(images.held_out), len(images.train))
    # Sources may be ordered: the first test images of MNIST are cleaner than the others.
    held_out = images.held_out[_choice(model, len(images.held_out), 3)[:count]]
    draws = model.draw_codes(count, Stream.EVALUATION, 0)
    other_draws = model.draw_codes(count, Stream.EVALUATION, 1)
    training_subset = images.train[_choice(model, len(images.train), 2)[:count]]
    columns = {
        "model": _column(model, images.held_out, model.decode(draws), held_out, model.encode(held_out), other_draws),
        "untrained": _column(
            untrained, images.held_out, untrained.decode(draws), held_out, untrained.encode(held_out), other_draws
        ),
        "training_data": _column(model, training_subset, training_subset, held_out, draws, other_draws),
    }
    return {"images_compared": count, "scores": columns}


def _choice(model: SinkhornAutoencoder, count: int, position: int) -> Tensor:
    return torch.randperm(count, generator=generator(model.config.seed, Stream.EVALUATION, position))


def _column(
    model: SinkhornAutoencoder, to_rebuild: Tensor, samples: Tensor, held_out: Tensor, codes: Tensor, draws: Tensor
) -> dict[str, Any]:
    return _reconstruction(model, to_rebuild) | {
        "sample_mmd_energy_x1000": 1000 * float(sinkdiv.mmd(samples, held_out, kernel="energy")),
        "sample_sinkhorn_divergence": _certified_divergence(samples, held_out),
        "latent_mmd_energy_x1000": 1000 * float(sinkdiv.mmd(codes, draws, kernel="energy")),
    }


def _reconstruction(model: SinkhornAutoencoder, images: Tensor) -> dict[str, float]:
    nats, squared_error = MeanMetric(), MeanMetric()
    for batch in images.split(BATCH):
        logits = model.decoder(model.encode(batch))
        nats.update(bernoulli_nats(logits, batch), weight=len(batch))
        squared_error.update((torch.sigmoid(logits) - batch).square().mean(), weight=len(batch))
    return {
        "reconstruction_nats_per_image": float(nats.compute()),
        "reconstruction_mse_per_pixel": float(squared_error.compute()),
    }


def _certified_divergence(samples: Tensor, held_out: Tensor) -> dict[str, float | bool]:
    blur = IMAGE_BLUR_PER_PIXEL * math.sqrt(held_out.shape[1])
    divergence = sinkdiv.solve_divergence(samples, held_out, blur=blur)
    lower, upper = divergence.bounds
    return {
        "value": float(divergence.value),
        "lower": float(lower),
        "upper": float(upper),
        "blur": blur,
        "converged": bool(divergence.converged),
    }


def score_table(metrics: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows (what, model, untrained, training data) as text, for a terminal or a page."""
    scores = [metrics["scores"][column] for column in COLUMNS]

    def row(title: str, key: str, digits: int) -> tuple[str, str, str, str]:
        model, untrained, data = (f"{score[key]:.{digits}f}" for score in scores)
        return title, model, untrained, data

    certified = [_with_half_width(score["sample_sinkhorn_divergence"]) for score in scores]
    return [
        row("reconstruction, nats per image", "reconstruction_nats_per_image", 1),
        row("reconstruction, MSE per pixel", "reconstruction_mse_per_pixel", 4),
        row("samples, energy MMD ×1000", "sample_mmd_energy_x1000", 1),
        ("samples, Sinkhorn divergence", certified[0], certified[1], certified[2]),
        row("codes, energy MMD ×1000", "latent_mmd_energy_x1000", 2),
    ]


def _with_half_width(divergence: dict[str, float]) -> str:
    half_width = max(divergence["upper"] - divergence["value"], divergence["value"] - divergence["lower"])
    return f"{divergence['value']:.3f} ± {half_width:.0e}"
