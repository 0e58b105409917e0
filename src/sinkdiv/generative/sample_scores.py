"""How good a model's samples are: everything that compares a set of images with held-out images."""

import math
from typing import Any

import torch
from torch import Tensor

import sinkdiv
from sinkdiv.generative.data import Images
from sinkdiv.generative.features import CLASSIFIER_OF, Activations, Extractor, features_for
from sinkdiv.generative.scores.confidence import SPLITS, classifier_score
from sinkdiv.generative.scores.frechet import frechet_distance
from sinkdiv.generative.scores.kernel import kernel_distance
from sinkdiv.generative.scores.memorisation import memorisation_scores, nearest_distances, relative_distances
from sinkdiv.generative.scores.support import support_scores
from sinkdiv.generative.scores.transport import certified_divergence, exact_wasserstein, root_mean_square_distance

# Scores of pixels and of transport compare no more: their cost grows with the image, or the cube of the number.
MOST_IMAGES_COMPARED = 1000
# With fewer, parts of the classifier score would hold a single image.
LEAST_IMAGES_WITH_FEATURES = 2 * SPLITS
# The blur of the divergence between images is this root-mean-square difference of grey levels per pixel. At half of it,
# 500 images are too few: the sampling noise of real digits against real digits exceeds the score of blurred ones.
IMAGE_BLUR_PER_PIXEL = 0.2
# The blur of the divergence between features, in root-mean-square distances of held-out ones. At 0.3 a thousand real
# digits score 1, and a thousand without fours 5; at 0.2 sampling noise counts for more: 3 and 8.
FEATURE_BLUR = 0.3
NO_FEATURES = "no FID, KID, classifier score, precision, recall, density, coverage"


class Comparison:
    """Held-out images that sets of samples are compared with, and what is computed from them once.

    Args:
        images: the data set.
        held_out: (n, pixels) of its held-out images, in random order; every set of samples must have as many.

    Attributes:
        images_compared: the number of images in scores of pixels and of transport.
        features: name and digest of the network whose features are compared, and the number of images in these
            scores; None where there are no features.
        missing: a sentence for each reason why there are fewer scores.
    """

    def __init__(self, images: Images, held_out: Tensor) -> None:
        self.all_held_out, self.held_out, self.training = held_out, held_out[:MOST_IMAGES_COMPARED], images.train
        self.images_compared = len(self.held_out)
        self.nearness = self._nearness(self.held_out, own_held_out=torch.arange(self.images_compared))
        self.extractor, self.missing = _features_or_reason(images, len(held_out))
        self.features = self.reference = None
        if self.extractor is not None:
            self.reference = self.extractor(held_out).features
            self.features = {"name": self.extractor.name, "digest": self.extractor.digest, "images": len(held_out)}
            if len(held_out) <= self.reference.shape[1]:
                self.missing.append(f"no FID: {len(held_out)} images for {self.reference.shape[1]} features")

    def score(self, samples: Tensor, own: Tensor | None = None) -> dict[str, Any]:
        """Rows of the table for `samples` (n, pixels).

        Args:
            samples: in random order.
            own: (n,) rows of the training images that they are; a model's are none.
        """
        few = samples[:MOST_IMAGES_COMPARED]
        nearness = self._nearness(few, None if own is None else own[:MOST_IMAGES_COMPARED])
        scores = self._in_pixels(few) | memorisation_scores(nearness, self.nearness)._asdict()
        if self.extractor is None or self.reference is None:
            return scores | {"sample_w2": exact_wasserstein(few, self.held_out)}
        return scores | self._in_features(self.extractor(samples), self.reference)

    def _nearness(self, few: Tensor, own: Tensor | None = None, own_held_out: Tensor | None = None) -> Tensor:
        to_training = nearest_distances(few, self.training, own)
        return relative_distances(to_training, nearest_distances(few, self.all_held_out, own_held_out))

    def _in_pixels(self, samples: Tensor) -> dict[str, Any]:
        blur = IMAGE_BLUR_PER_PIXEL * math.sqrt(samples.shape[1])
        return {
            "sample_mmd_energy_x1000": 1000 * float(sinkdiv.mmd(samples, self.held_out, kernel="energy")),
            "sample_sinkhorn_divergence": certified_divergence(samples, self.held_out, blur),
        }

    def _in_features(self, seen: Activations, reference: Tensor) -> dict[str, Any]:
        few, few_held_out = seen.features[:MOST_IMAGES_COMPARED], reference[:MOST_IMAGES_COMPARED]
        blur = FEATURE_BLUR * root_mean_square_distance(reference)
        scores = support_scores(seen.features, reference)._asdict() | {
            "kid_x1000": 1000 * kernel_distance(seen.features, reference),
            "classifier_score": classifier_score(seen.logits)[0],
            "sample_w2": exact_wasserstein(few, few_held_out),
            "feature_sinkhorn_divergence": certified_divergence(few, few_held_out, blur),
        }
        if len(reference) > reference.shape[1]:
            scores["fid"] = frechet_distance(seen.features, reference)
        return scores


def _features_or_reason(images: Images, count: int) -> tuple[Extractor | None, list[str]]:
    """The network to compare `count` images with, or a sentence about what is missing without one."""
    extractor = features_for(images.name, images.shape)
    if extractor is None and images.shape[0] == 3:
        return None, [f'{NO_FEATURES}: they need pip install "sinkdiv[backbone]", and then sinkdiv evaluate']
    if extractor is None:
        return None, [f"{NO_FEATURES}: of grey images, only {', '.join(CLASSIFIER_OF)} have features"]
    if count < LEAST_IMAGES_WITH_FEATURES:
        return None, [f"{NO_FEATURES}: they need {LEAST_IMAGES_WITH_FEATURES} held-out images, not {count}"]
    return extractor, []
