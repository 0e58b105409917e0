"""How good a trained model is: on images it has not seen, beside an untrained model and the data itself."""

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric

import sinkdiv
from sinkdiv.generative.autoencoder import Autoencoder, bernoulli_nats
from sinkdiv.generative.data import Images
from sinkdiv.generative.model import Model
from sinkdiv.generative.models import make_model
from sinkdiv.generative.seeds import Stream, generator

MOST_IMAGES_COMPARED = 1000
BATCH = 1000
# The blur of the divergence between images is this root-mean-square difference of grey levels per pixel. At half of it,
# 500 images are too few: the sampling noise of real digits against real digits exceeds the score of blurred ones.
IMAGE_BLUR_PER_PIXEL = 0.2
# Every score a model may have: its title, and the digits shown.
ROWS = {
    "reconstruction_nats_per_image": ("reconstruction, nats per image", 1),
    "reconstruction_mse_per_pixel": ("reconstruction, MSE per pixel", 4),
    "sample_mmd_energy_x1000": ("samples, energy MMD ×1000", 1),
    "sample_sinkhorn_divergence": ("samples, Sinkhorn divergence", 3),
    "latent_mmd_energy_x1000": ("codes, energy MMD ×1000", 2),
}
HEADLINE = ("reconstruction_nats_per_image", "sample_mmd_energy_x1000")
COLUMNS = ("model", "untrained", "training_data")


def score(model: Model, images: Images) -> dict[str, Any]:
    """The scores of `model` (on the CPU), as plain numbers ready for JSON.

    Three columns with the same rows: `model`; `untrained`, the same networks before training; `training_data`, what
    a perfect model could hope for: training images in the place of samples and held-out images, prior draws in the
    place of codes. Rows of every model:

    - `sample_mmd_energy_x1000`: 1000 · ½|samples − held-out|² in the energy kernel, diagonal terms included
    - `sample_sinkhorn_divergence`: the same two sets, S_ε of |x−y|² with its certified interval

    and of an autoencoder:

    - `reconstruction_nats_per_image`: Bernoulli cross-entropy, summed over pixels (P19's RE, but of grey images)
    - `reconstruction_mse_per_pixel`
    - `latent_mmd_energy_x1000`: codes of held-out images against prior draws
    """
    untrained = make_model(model.config).eval().requires_grad_(False)
    count = min(MOST_IMAGES_COMPARED, len(images.held_out), len(images.train))
    # Sources may be ordered: the first test images of MNIST are cleaner than the others.
    held_out = images.held_out[_choice(model, len(images.held_out), 3)[:count]]
    training_subset = images.train[_choice(model, len(images.train), 2)[:count]]
    columns = {
        "model": _samples(model.draw(count, Stream.EVALUATION, 0), held_out),
        "untrained": _samples(untrained.draw(count, Stream.EVALUATION, 0), held_out),
        "training_data": _samples(training_subset, held_out),
    }
    if isinstance(model, Autoencoder) and isinstance(untrained, Autoencoder):
        draws = model.draw_codes(count, Stream.EVALUATION, 0)
        other_draws = model.draw_codes(count, Stream.EVALUATION, 1)
        columns["model"] |= _codes(model, images.held_out, model.encode(held_out), other_draws)
        columns["untrained"] |= _codes(untrained, images.held_out, untrained.encode(held_out), other_draws)
        columns["training_data"] |= _codes(model, training_subset, draws, other_draws)
    return {"images_compared": count, "scores": columns}


def _choice(model: Model, count: int, position: int) -> Tensor:
    return torch.randperm(count, generator=generator(model.config.seed, Stream.EVALUATION, position))


def _samples(samples: Tensor, held_out: Tensor) -> dict[str, Any]:
    return {
        "sample_mmd_energy_x1000": 1000 * float(sinkdiv.mmd(samples, held_out, kernel="energy")),
        "sample_sinkhorn_divergence": _certified_divergence(samples, held_out),
    }


def _codes(model: Autoencoder, to_rebuild: Tensor, codes: Tensor, draws: Tensor) -> dict[str, Any]:
    nats, squared_error = MeanMetric(), MeanMetric()
    for batch in to_rebuild.split(BATCH):
        logits = model.decoder(model.encode(batch))
        nats.update(bernoulli_nats(logits, batch), weight=len(batch))
        squared_error.update((torch.sigmoid(logits) - batch).square().mean(), weight=len(batch))
    return {
        "reconstruction_nats_per_image": float(nats.compute()),
        "reconstruction_mse_per_pixel": float(squared_error.compute()),
        "latent_mmd_energy_x1000": 1000 * float(sinkdiv.mmd(codes, draws, kernel="energy")),
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


def headline(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """The few numbers (what, value) that a report begins with."""
    model = metrics["scores"]["model"]
    return [(ROWS[key][0], f"{model[key]:.{ROWS[key][1]}f}") for key in HEADLINE if key in model]


def score_table(metrics: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows (what, model, untrained, training data) as text, for a terminal or a page."""
    scores = [metrics["scores"][column] for column in COLUMNS]
    rows = []
    for key, (title, digits) in ROWS.items():
        if key in scores[0]:
            model, untrained, data = (_shown(score[key], digits) for score in scores)
            rows.append((title, model, untrained, data))
    return rows


def explanation(metrics: dict[str, Any]) -> str:
    """What the columns and the intervals of `score_table` mean."""
    blur = metrics["scores"]["model"]["sample_sinkhorn_divergence"]["blur"]
    return (
        f"{metrics['images_compared']} samples against as many held-out images. Untrained: the same networks before "
        "training. Training data: training images in place of samples and held-out images, prior draws in place of "
        "codes; what is left there is sampling noise. The Sinkhorn divergence has blur "
        f"{blur:.2g}; ± is its certified interval."
    )


def _shown(value: Any, digits: int) -> str:
    if isinstance(value, dict):
        half_width = max(value["upper"] - value["value"], value["value"] - value["lower"])
        return f"{value['value']:.{digits}f} ± {half_width:.0e}"
    return f"{value:.{digits}f}"
