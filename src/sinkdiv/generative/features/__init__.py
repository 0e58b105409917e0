"""Which features the images of a data set are compared in: a few numbers an image in which likeness is nearness."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sinkdiv.generative.features import efficientnet
from sinkdiv.generative.features.classifier import SIDE, card, trained_classifier

BATCH = 125
CLASSIFIER_OF = {"mnist": "mnist", "mnist-5k": "mnist", "fashion-mnist": "fashion-mnist"}


class Activations(NamedTuple):
    """What a network sees in images: `features` (n, d) and `logits` (n, classes), float32."""

    features: Tensor
    logits: Tensor


class Network(Protocol):
    """A frozen classifier in two halves."""

    def features(self, images: Tensor) -> Tensor: ...

    def logits(self, features: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Extractor:
    """A network to compare images with.

    Attributes:
        name: part of the name of every score computed with it, as in `fid_mnist_classifier`.
        digest: SHA-256 of its weights; scores compare only where it is the same.
        pixels: length of the flat images it accepts.
    """

    name: str
    digest: str
    pixels: int
    network: Network

    def __call__(self, images: Tensor) -> Activations:
        """The activations of flat images (n, pixels) in [0, 1], on the CPU; neither mode nor batching matters."""
        if images.ndim != 2 or images.shape[1] != self.pixels:
            raise ValueError(f"images has shape {tuple(images.shape)}; {self.name} needs (n, {self.pixels})")
        with torch.no_grad():
            features = torch.cat([self.network.features(batch.float()) for batch in images.cpu().split(BATCH)])
            return Activations(features, self.network.logits(features))


def features_for(data: str, image_shape: tuple[int, int, int]) -> Extractor | None:
    """The extractor for images (channels, height, width) of the data called `data`, or None where there is none.

    MNIST (`mnist`, `mnist-5k`) and `fashion-mnist` have a classifier of their own that comes with the package. Colour
    images of any source have EfficientNet-Lite0 where the extra `sinkdiv[backbone]` is installed.
    """
    if data in CLASSIFIER_OF and image_shape == (1, SIDE, SIDE):
        name = CLASSIFIER_OF[data]
        return Extractor(
            f"{name.replace('-', '_')}_classifier", card(name)["sha256"], SIDE * SIDE, trained_classifier(name)
        )
    if image_shape[0] == 3 and efficientnet.available():
        channels, height, width = image_shape
        return Extractor(
            "efficientnet_lite0",
            efficientnet.digest(),
            channels * height * width,
            efficientnet.frozen_network(image_shape),
        )
    return None
