"""How good a trained model is: on images it has not seen, beside an untrained model and the data itself."""

from typing import Any

import torch
from torch import Tensor

from sinkdiv.generative.data import Images
from sinkdiv.generative.models import Autoencoder, Model
from sinkdiv.generative.scores import SCORES
from sinkdiv.generative.scores.subject import Encoded, Reference, Subject
from sinkdiv.generative.seeds import Stream, generator

#: Features of a colour image take a hundred times as long as those of a digit.
MOST_GREY_IMAGES, MOST_COLOUR_IMAGES = 10_000, 2_000
#: Images drawn or encoded at a time.
BATCH = 1000
# Places in the stream of evaluation.
_SAMPLES, _DRAWS, _TRAINING_ORDER, _HELD_OUT_ORDER, _OTHER_DRAWS, _POSTERIORS = 0, 1, 2, 3, 4, 5


def score(model: Model, untrained: Model, images: Images) -> dict[str, Any]:
    """The scores of `model` (on the CPU), as plain numbers ready for JSON.

    Three columns with the same rows, those of `SCORES` that there are: `model`; `untrained`, the same model before
    training; `training_data`, what a perfect model could hope for: training images in the place of samples and held-out
    images, prior draws in the place of codes.

    Returns:
        `scores`: the columns; `images_compared`: the number of images where it is bounded by cost (pixels, transport);
        `features`: the network's name and digest, and the number of images in its scores, or None; `missing`: a
        sentence for each reason why there are fewer scores.
    """
    most = MOST_GREY_IMAGES if images.shape[0] == 1 else MOST_COLOUR_IMAGES
    count = min(most, len(images.held_out), len(images.train))
    # Sources may be ordered: the first test images of MNIST are cleaner than the others.
    held_out = images.held_out[_order(model, len(images.held_out), _HELD_OUT_ORDER)[:count]]
    training_rows = _order(model, len(images.train), _TRAINING_ORDER)[:count]
    training_images = images.train[training_rows]
    reference = Reference(images, held_out)

    of_model = of_untrained = of_data = None
    if isinstance(model, Autoencoder) and isinstance(untrained, Autoencoder):
        draws, other_draws = (model.draw_codes(count, Stream.EVALUATION, place) for place in (_DRAWS, _OTHER_DRAWS))
        of_model = Encoded(model, images.held_out, _encode(model, held_out), draws)
        of_untrained = Encoded(untrained, images.held_out, _encode(untrained, held_out), draws)
        of_data = Encoded(model, training_images, other_draws, draws)
    subject = Subject(reference, _draw(model, count), encoded=of_model)
    columns = {
        "model": _column(subject),
        "untrained": _column(Subject(reference, _draw(untrained, count), encoded=of_untrained)),
        "training_data": _column(Subject(reference, training_images, training_rows, of_data)),
    }
    reasons = dict.fromkeys(made.missing(subject) for made in SCORES.values())
    return {
        "images_compared": len(reference.few),
        "features": reference.record,
        "missing": [reason for reason in reasons if reason],
        "scores": columns,
    }


def _column(subject: Subject) -> dict[str, Any]:
    return {name: made.compute(subject) for name, made in SCORES.items() if made.missing(subject) is None}


def _order(model: Model, count: int, place: int) -> Tensor:
    return torch.randperm(count, generator=generator(model.config.seed, Stream.EVALUATION, place))


def _draw(model: Model, count: int) -> Tensor:
    starts = range(0, count, BATCH)
    return torch.cat([model.draw(min(BATCH, count - k), Stream.EVALUATION, _SAMPLES, k) for k in starts])


def _encode(model: Autoencoder, images: Tensor) -> Tensor:
    noise = generator(model.config.seed, Stream.EVALUATION, _POSTERIORS)
    return torch.cat([model.sample_codes(batch, noise) for batch in images.split(BATCH)])
