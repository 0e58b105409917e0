"""What a score is, and what it is computed from: a set of samples beside held-out images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from sinkdiv.generative.data import Images
from sinkdiv.generative.features import CLASSIFIER_OF, Activations, features_for
from sinkdiv.generative.models import Autoencoder

LOWER, HIGHER = "↓", "↑"
#: Scores of pixels and of transport compare no more: their cost grows with the image, or the cube of the number.
MOST_IMAGES_COMPARED = 1000
#: With fewer, some of the ten parts of the classifier score would hold a single image.
LEAST_IMAGES_WITH_FEATURES = 20
NO_FEATURES = "no FID and no other score in features"

Found = TypeVar("Found")


class _Remembering:
    """Something from which several scores compute the same: it is computed once."""

    def __init__(self) -> None:
        self._found: dict[Callable[[Any], Any], Any] = {}

    def once(self, compute: Callable[[Any], Found]) -> Found:
        """`compute(self)`, which is computed when it is first asked for."""
        if compute not in self._found:
            self._found[compute] = compute(self)
        found: Found = self._found[compute]
        return found


class Reference(_Remembering):
    """The held-out images that sets of samples are compared with.

    Args:
        images: the data set.
        held_out: (n, pixels) of its held-out images, in random order; every set of samples must have as many.

    Attributes:
        few: those in scores of pixels and of transport.
        features: (n, d), or None where there are none; `why_no_features` says why.
        record: name and digest of the network whose features are compared, and the number of images in these scores.
    """

    def __init__(self, images: Images, held_out: Tensor) -> None:
        super().__init__()
        self.all, self.few, self.training = held_out, held_out[:MOST_IMAGES_COMPARED], images.train
        self.extractor = features_for(images.name, images.shape)
        self.why_no_features = self._missing(images)
        self.features: Tensor | None = None
        self.record: dict[str, Any] | None = None
        if self.extractor is not None and self.why_no_features is None:
            self.features = self.extractor(held_out).features
            self.record = {"name": self.extractor.name, "digest": self.extractor.digest, "images": len(held_out)}

    def _missing(self, images: Images) -> str | None:
        if self.extractor is None and images.shape[0] == 3:
            return f'{NO_FEATURES}: they need pip install "sinkdiv[backbone]", and then sinkdiv evaluate'
        if self.extractor is None:
            return f"{NO_FEATURES}: of grey images, only {', '.join(CLASSIFIER_OF)} have features"
        if len(self.all) < LEAST_IMAGES_WITH_FEATURES:
            return f"{NO_FEATURES}: they need {LEAST_IMAGES_WITH_FEATURES} held-out images, not {len(self.all)}"
        return None


@dataclass(frozen=True)
class Encoded:
    """What an autoencoder makes of images.

    Attributes:
        model: the autoencoder.
        images: (k, pixels) to be rebuilt.
        codes: (n, d) whose distribution should be the prior.
        draws: (n, d) of the prior.
    """

    model: Autoencoder
    images: Tensor
    codes: Tensor
    draws: Tensor


class Subject(_Remembering):
    """A column of the table: samples to be scored.

    Args:
        reference: the held-out images.
        samples: (n, pixels) in random order.
        own_rows: (n,) rows of the training images that they are; a model's are none.
        encoded: what stands in for codes and reconstructions; None for a model without an encoder.
    """

    def __init__(
        self, reference: Reference, samples: Tensor, own_rows: Tensor | None = None, encoded: Encoded | None = None
    ) -> None:
        super().__init__()
        self.reference, self.samples, self.own_rows, self._encoded = reference, samples, own_rows, encoded
        self.few = samples[:MOST_IMAGES_COMPARED]

    @property
    def activations(self) -> Activations:
        """Features (n, d) and logits (n, classes) of the samples, for scores that need them."""
        return self.once(_activations)

    @property
    def features(self) -> tuple[Tensor, Tensor]:
        """Features (n, d) of the samples and of the held-out images, for scores that need them."""
        assert self.reference.features is not None, "there is no score in features without them"
        return self.activations.features, self.reference.features

    @property
    def encoded(self) -> Encoded:
        """Codes and reconstructions, for scores that need them."""
        assert self._encoded is not None, "there is no score of codes without an encoder"
        return self._encoded

    def missing_features(self) -> str | None:
        """`Score.missing` of a score in features."""
        return self.reference.why_no_features

    def missing_encoder(self) -> str | None:
        """`Score.missing` of a score of codes and reconstructions."""
        return "" if self._encoded is None else None


def _activations(subject: Subject) -> Activations:
    assert subject.reference.extractor is not None, "there are no activations without a network"
    return subject.reference.extractor(subject.samples)


@dataclass(frozen=True)
class Score:
    """A row of the table.

    Attributes:
        title: what it is; {features} stands for the network whose features it compares, {space} for the same, or for
            pixels where there are no features.
        digits: shown behind the point.
        compute: its value: a number, one with a certified interval, or None where it is not defined.
        better: the direction, or the value of new real images.
        missing: why a subject has no such score, a sentence after "There is "; "" where nothing needs to be said, None
            where it has the score.
    """

    title: str
    digits: int
    compute: Callable[[Subject], Any]
    better: str = LOWER
    missing: Callable[[Subject], str | None] = lambda subject: None
