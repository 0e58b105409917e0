"""The small convnets whose features the scores of grey images are computed in; their weights come with the package.

P19 measured the FID of digits in the features of a convnet that its authors trained and did not publish, so its numbers
compare within P19 only. These networks are ours: `experiments/feature_classifier` trains them, and the card beside
each file of weights says how well they classify. A score computed with them carries their name.
"""

import functools
import json
from importlib import resources
from typing import Any

import torch
from torch import Tensor, nn

SIDE = 28
CLASSES = 10
FEATURES = 64
CHANNELS = (16, 32, 48)


class Classifier(nn.Module):
    """Three convolutions, each halving the image, then 64 features and 10 logits; 47 thousand parameters.

    The features are standardised over the images trained on (batch normalisation without a scale of its own), which
    fixes the units of every distance between features: one is a standard deviation of that feature over real images.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third = CHANNELS
        self.convolutions = nn.Sequential(*_halving(1, first), *_halving(first, second), *_halving(second, third))
        self.to_features = nn.Linear(third * (SIDE // 8) ** 2, FEATURES, bias=False)
        self.standardise = nn.BatchNorm1d(FEATURES, affine=False)
        self.to_logits = nn.Linear(FEATURES, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        """(n, 64) of flat grey images (n, 784) in [0, 1]."""
        maps = self.convolutions(images.reshape(-1, 1, SIDE, SIDE))
        features: Tensor = self.standardise(self.to_features(maps.flatten(1)))
        return features

    def logits(self, features: Tensor) -> Tensor:
        """(n, 10) of features (n, 64)."""
        logits: Tensor = self.to_logits(torch.relu(features))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.features(images))


def _halving(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]


def card(name: str) -> dict[str, Any]:
    """What is known of the classifier of `name` ("mnist", "fashion-mnist"): accuracies, how it was trained, digest."""
    content: dict[str, Any] = json.loads(_file(f"{name}.json").read_text(encoding="utf-8"))
    return content


@functools.cache
def trained_classifier(name: str) -> Classifier:
    """The classifier of `name` ("mnist", "fashion-mnist") with the weights that come with the package, frozen."""
    # The draws that initialise the layers are thrown away; the caller's generator must not notice them.
    with torch.random.fork_rng(devices=[]):
        model = Classifier()
    with _file(f"{name}.pt").open("rb") as file:
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    # Channels last: its convolutions take a third of the time. PyTorch's stubs lack this form of `to`.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().requires_grad_(False)


def _file(name: str) -> Any:
    return resources.files("sinkdiv.generative.features") / "weights" / name
