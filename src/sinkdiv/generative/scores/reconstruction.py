"""How far reconstructions are from the images."""

from typing import NamedTuple

import torch
from torchmetrics import MeanMetric

from sinkdiv.generative.models.autoencoder import bernoulli_nats
from sinkdiv.generative.scores.subject import LOWER, Score, Subject

#: Images rebuilt at a time.
BATCH = 1000


class Reconstruction(NamedTuple):
    """Mean errors: Bernoulli cross-entropy, summed over pixels (P19's RE, but of grey images); squares per pixel."""

    nats: float
    squared_error: float


def _reconstruction(subject: Subject) -> Reconstruction:
    model, nats, squared_error = subject.encoded.model, MeanMetric(), MeanMetric()
    for batch in subject.encoded.images.split(BATCH):
        logits = model.decoder(model.encode(batch))
        nats.update(bernoulli_nats(logits, batch), weight=len(batch))
        squared_error.update((torch.sigmoid(logits) - batch).square().mean(), weight=len(batch))
    return Reconstruction(float(nats.compute()), float(squared_error.compute()))


NATS = Score(
    "reconstruction, nats per image",
    1,
    lambda subject: subject.once(_reconstruction).nats,
    LOWER,
    Subject.missing_encoder,
)
SQUARED_ERROR = Score(
    "reconstruction, MSE per pixel",
    4,
    lambda subject: subject.once(_reconstruction).squared_error,
    LOWER,
    Subject.missing_encoder,
)
