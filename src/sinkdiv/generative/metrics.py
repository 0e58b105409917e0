"""How good a trained model is: on images it has not seen, beside an untrained model and the data itself."""

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric

import sinkdiv
from sinkdiv.generative.autoencoder import Autoencoder, bernoulli_nats
from sinkdiv.generative.data import Images
from sinkdiv.generative.features import Activations, features_for
from sinkdiv.generative.matching import IMQ_SCALES
from sinkdiv.generative.model import Model
from sinkdiv.generative.models import make_model
from sinkdiv.generative.scores.confidence import SPLITS, classifier_score
from sinkdiv.generative.scores.frechet import frechet_distance
from sinkdiv.generative.scores.kernel import kernel_distance, multiquadric_distance
from sinkdiv.generative.scores.support import support_scores
from sinkdiv.generative.seeds import Stream, generator

# Scores of pixels and of transport: their cost grows with the square, or the cube.
MOST_IMAGES_COMPARED = 1000
MOST_GREY_IMAGES, MOST_COLOUR_IMAGES = 10_000, 2_000
# With fewer, parts of the classifier score would hold a single image.
LEAST_IMAGES_WITH_FEATURES = 2 * SPLITS
BATCH = 1000
# The blur of the divergence between images is this root-mean-square difference of grey levels per pixel. At half of it,
# 500 images are too few: the sampling noise of real digits against real digits exceeds the score of blurred ones.
IMAGE_BLUR_PER_PIXEL = 0.2
# Places in the stream of evaluation.
_SAMPLES, _DRAWS, _TRAINING_ORDER, _HELD_OUT_ORDER, _OTHER_DRAWS, _POSTERIORS = 0, 1, 2, 3, 4, 5


def score(model: Model, images: Images) -> dict[str, Any]:
    """The scores of `model` (on the CPU), as plain numbers ready for JSON.

    Three columns with the same rows: `model`; `untrained`, the same networks before training; `training_data`, what
    a perfect model could hope for: training images in the place of samples and held-out images, prior draws in the
    place of codes. Rows of every model:

    - `sample_mmd_energy_x1000`: 1000 · ½|samples − held-out|² in the energy kernel, diagonal terms included; lower is
      better
    - `sample_sinkhorn_divergence`: the same two sets, S_ε of |x−y|² with its certified interval; lower

    of images that have features, which `features` names (scores in other features are other scores):

    - `fid`: Fréchet distance; lower
    - `kid_x1000`: 1000 · squared kernel distance, unbiased; lower, 0 for real images
    - `classifier_score`: sure and varied answers of the classifier; higher
    - `precision`, `density`: whether samples are like real images; `recall`, `coverage`: whether they are as varied;
      higher

    and of an autoencoder:

    - `reconstruction_nats_per_image`: Bernoulli cross-entropy, summed over pixels (P19's RE, but of grey images)
    - `reconstruction_mse_per_pixel`; both: lower
    - `latent_mmd_energy_x1000`: codes of held-out images (drawn from their posteriors, if any) against the prior; lower
    - `latent_mmd_imq_x1000`: the same in P19's kernels, unbiased, summed over the factors of a product prior; lower,
      0 for codes that follow the prior
    """
    untrained = make_model(model.config).eval().requires_grad_(False)
    most = MOST_GREY_IMAGES if images.shape[0] == 1 else MOST_COLOUR_IMAGES
    count = min(most, len(images.held_out), len(images.train))
    # Sources may be ordered: the first test images of MNIST are cleaner than the others.
    held_out = images.held_out[_order(model, len(images.held_out), _HELD_OUT_ORDER)[:count]]
    training_subset = images.train[_order(model, len(images.train), _TRAINING_ORDER)[:count]]
    samples = {"model": _draw(model, count), "untrained": _draw(untrained, count), "training_data": training_subset}
    few = min(MOST_IMAGES_COMPARED, count)
    columns = {name: _pixel_scores(drawn[:few], held_out[:few]) for name, drawn in samples.items()}
    features = None
    extractor = features_for(images.name, images.shape)
    if extractor is not None and count >= LEAST_IMAGES_WITH_FEATURES:
        reference = extractor(held_out).features
        for name, drawn in samples.items():
            columns[name] |= _feature_scores(extractor(drawn), reference)
        features = {"name": extractor.name, "digest": extractor.digest, "images": count}
    if isinstance(model, Autoencoder) and isinstance(untrained, Autoencoder):
        draws, other_draws = (model.draw_codes(count, Stream.EVALUATION, place) for place in (_DRAWS, _OTHER_DRAWS))
        for name, encoder in (("model", model), ("untrained", untrained)):
            columns[name] |= _reconstruction_scores(encoder, images.held_out)
            columns[name] |= _code_scores(encoder, _encode(encoder, held_out), draws)
        columns["training_data"] |= _reconstruction_scores(model, training_subset)
        columns["training_data"] |= _code_scores(model, other_draws, draws)
    return {"images_compared": few, "features": features, "scores": columns}


def _order(model: Model, count: int, place: int) -> Tensor:
    return torch.randperm(count, generator=generator(model.config.seed, Stream.EVALUATION, place))


def _draw(model: Model, count: int) -> Tensor:
    starts = range(0, count, BATCH)
    return torch.cat([model.draw(min(BATCH, count - k), Stream.EVALUATION, _SAMPLES, k) for k in starts])


def _encode(model: Autoencoder, images: Tensor) -> Tensor:
    noise = generator(model.config.seed, Stream.EVALUATION, _POSTERIORS)
    return torch.cat([model.sample_codes(batch, noise) for batch in images.split(BATCH)])


def _pixel_scores(samples: Tensor, held_out: Tensor) -> dict[str, Any]:
    return {
        "sample_mmd_energy_x1000": 1000 * float(sinkdiv.mmd(samples, held_out, kernel="energy")),
        "sample_sinkhorn_divergence": _certified_divergence(samples, held_out),
    }


def _feature_scores(seen: Activations, reference: Tensor) -> dict[str, Any]:
    return {
        "fid": frechet_distance(seen.features, reference),
        "kid_x1000": 1000 * kernel_distance(seen.features, reference),
        "classifier_score": classifier_score(seen.logits)[0],
    } | support_scores(seen.features, reference)._asdict()


def _reconstruction_scores(model: Autoencoder, images: Tensor) -> dict[str, Any]:
    nats, squared_error = MeanMetric(), MeanMetric()
    for batch in images.split(BATCH):
        logits = model.decoder(model.encode(batch))
        nats.update(bernoulli_nats(logits, batch), weight=len(batch))
        squared_error.update((torch.sigmoid(logits) - batch).square().mean(), weight=len(batch))
    return {
        "reconstruction_nats_per_image": float(nats.compute()),
        "reconstruction_mse_per_pixel": float(squared_error.compute()),
    }


def _code_scores(model: Autoencoder, codes: Tensor, draws: Tensor) -> dict[str, Any]:
    few = slice(MOST_IMAGES_COMPARED)
    return {
        "latent_mmd_energy_x1000": 1000 * float(sinkdiv.mmd(codes[few], draws[few], kernel="energy")),
        "latent_mmd_imq_x1000": 1000 * _multiquadric(model, codes, draws),
    }


def _multiquadric(model: Autoencoder, codes: Tensor, draws: Tensor) -> float:
    total = 0.0
    for part, factor in model.prior.factors(codes.shape[1]):
        spread = factor.spread(part.stop - part.start)
        scales = [scale * spread for scale in IMQ_SCALES]
        total += multiquadric_distance(codes[:, part], draws[:, part], scales)
    return total


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
