"""How good a trained model is: on images it has not seen, beside an untrained model and the data itself."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric

import sinkdiv
from sinkdiv.generative.autoencoder import Autoencoder, bernoulli_nats
from sinkdiv.generative.data import Images
from sinkdiv.generative.matching import IMQ_SCALES
from sinkdiv.generative.model import Model
from sinkdiv.generative.models import make_model
from sinkdiv.generative.sample_scores import MOST_IMAGES_COMPARED, Comparison
from sinkdiv.generative.scores.kernel import multiquadric_distance
from sinkdiv.generative.seeds import Stream, generator

# Features of a colour image take a hundred times as long as those of a digit.
MOST_GREY_IMAGES, MOST_COLOUR_IMAGES = 10_000, 2_000
BATCH = 1000
# Places in the stream of evaluation.
_SAMPLES, _DRAWS, _TRAINING_ORDER, _HELD_OUT_ORDER, _OTHER_DRAWS, _POSTERIORS = 0, 1, 2, 3, 4, 5


def score(model: Model, images: Images) -> dict[str, Any]:
    """The scores of `model` (on the CPU), as plain numbers ready for JSON.

    Three columns with the same rows: `model`; `untrained`, the same networks before training; `training_data`, what
    a perfect model could hope for: training images in the place of samples and held-out images, prior draws in the
    place of codes. Rows of every model, with what is better:

    - `sample_mmd_energy_x1000`: 1000 · ½|samples − held-out|² in the energy kernel, diagonal terms included; lower
    - `sample_sinkhorn_divergence`: the same two sets, S_ε of |x−y|² with its certified interval; lower
    - `sample_w2`: their exact Wasserstein-2 distance, in features, or in pixels where there are none; lower
    - `nearest_training_ratio`, `copied_share`: whether samples are copies of training images, in pixels; new
      images have 1 and 0.01, copies 0 and 1

    of images that have features (scores in other features are other scores):

    - `fid`: Fréchet distance; lower
    - `kid_x1000`: 1000 · squared kernel distance, unbiased; lower
    - `feature_sinkhorn_divergence`: S_ε with its certified interval; lower
    - `classifier_score`: whether the classifier's answers are sure and varied; higher
    - `precision`, `density`: whether samples are like real images; higher
    - `recall`, `coverage`: whether they are as varied; higher

    and of an autoencoder:

    - `reconstruction_nats_per_image`: Bernoulli cross-entropy, summed over pixels (P19's RE, but of grey images); lower
    - `reconstruction_mse_per_pixel`; lower
    - `latent_mmd_energy_x1000`: codes of held-out images (drawn from their posteriors, if any) against the prior; lower
    - `latent_mmd_imq_x1000`: the same in P19's kernels, unbiased, summed over the factors of a product prior; lower

    Returns:
        `scores`: the columns; `images_compared`: the number of images where it is bounded by cost (pixels, transport);
        `features`: the network's name and digest, and the number of images in its scores, or None; `missing`: a
        sentence for each reason why there are fewer scores.
    """
    untrained = make_model(model.config).eval().requires_grad_(False)
    most = MOST_GREY_IMAGES if images.shape[0] == 1 else MOST_COLOUR_IMAGES
    count = min(most, len(images.held_out), len(images.train))
    # Sources may be ordered: the first test images of MNIST are cleaner than the others.
    held_out = images.held_out[_order(model, len(images.held_out), _HELD_OUT_ORDER)[:count]]
    training_rows = _order(model, len(images.train), _TRAINING_ORDER)[:count]
    training_subset = images.train[training_rows]
    comparison = Comparison(images, held_out)
    columns = {
        "model": comparison.score(_draw(model, count)),
        "untrained": comparison.score(_draw(untrained, count)),
        "training_data": comparison.score(training_subset, own=training_rows),
    }
    if isinstance(model, Autoencoder) and isinstance(untrained, Autoencoder):
        draws, other_draws = (model.draw_codes(count, Stream.EVALUATION, place) for place in (_DRAWS, _OTHER_DRAWS))
        columns["model"] |= _rebuilding(model, images.held_out) | _matching(model, _encode(model, held_out), draws)
        columns["untrained"] |= _rebuilding(untrained, images.held_out)
        columns["untrained"] |= _matching(untrained, _encode(untrained, held_out), draws)
        columns["training_data"] |= _rebuilding(model, training_subset) | _matching(model, other_draws, draws)
    return {
        "images_compared": comparison.images_compared,
        "features": comparison.features,
        "missing": comparison.missing,
        "scores": columns,
    }


def _order(model: Model, count: int, place: int) -> Tensor:
    return torch.randperm(count, generator=generator(model.config.seed, Stream.EVALUATION, place))


def _draw(model: Model, count: int) -> Tensor:
    starts = range(0, count, BATCH)
    return torch.cat([model.draw(min(BATCH, count - k), Stream.EVALUATION, _SAMPLES, k) for k in starts])


def _encode(model: Autoencoder, images: Tensor) -> Tensor:
    noise = generator(model.config.seed, Stream.EVALUATION, _POSTERIORS)
    return torch.cat([model.sample_codes(batch, noise) for batch in images.split(BATCH)])


def _rebuilding(model: Autoencoder, images: Tensor) -> dict[str, Any]:
    nats, squared_error = MeanMetric(), MeanMetric()
    for batch in images.split(BATCH):
        logits = model.decoder(model.encode(batch))
        nats.update(bernoulli_nats(logits, batch), weight=len(batch))
        squared_error.update((torch.sigmoid(logits) - batch).square().mean(), weight=len(batch))
    return {
        "reconstruction_nats_per_image": float(nats.compute()),
        "reconstruction_mse_per_pixel": float(squared_error.compute()),
    }


def _matching(model: Autoencoder, codes: Tensor, draws: Tensor) -> dict[str, Any]:
    few = slice(MOST_IMAGES_COMPARED)
    multiquadric = 0.0
    for part, factor in model.prior.factors(codes.shape[1]):
        spread = factor.spread(part.stop - part.start)
        scales = [scale * spread for scale in IMQ_SCALES]
        multiquadric += multiquadric_distance(codes[:, part], draws[:, part], scales)
    return {
        "latent_mmd_energy_x1000": 1000 * float(sinkdiv.mmd(codes[few], draws[few], kernel="energy")),
        "latent_mmd_imq_x1000": 1000 * multiquadric,
    }
