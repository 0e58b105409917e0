"""What the codes of canvases know, and how well they are decoded; everything on digits that were not trained with."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor

from experiments.frame.scores import certified, votes
from experiments.probabilistic_program.canvases import SALT, Canvases
from sinkdiv.generative.models.autoencoder import Autoencoder, bernoulli_nats
from sinkdiv.generative.seeds import Stream

#: The coordinates of a code that should say what is on the canvas, and those that should say where.
PARTS = {"what": slice(0, 10), "where": slice(10, 13)}
PLACES = ("size", "right", "down")
KNOWN = 5000
EPS = 0.5


@torch.no_grad()
def score(model: Autoencoder, known: Canvases, others: Canvases) -> dict[str, Any]:
    """Plain numbers for a record.

    - `nats`, cross-entropy of the canvas, and `clean_mse`, the mean squared difference of the decoded code, the salt's
      share taken off, and the canvas without its salt; both with the mean canvas in place of the model too (`of_mean`)
    - `what` and `where`, the two parts of a code: `votes` for the right class among the nearest codes of training
      canvases; `places`, the share of variance (R²) of size, right and down that is linear in this part; `divergence`
      from the prior with its certified interval, and that of draws from the prior
    """
    draws, more = (model.draw_codes(len(others.images), Stream.EVALUATION, k) for k in (10, 11))
    known_codes, codes = model.encode(known.images[:KNOWN]), model.encode(others.images)
    logits, mean = model.decoder(codes), known.images.mean(0).expand_as(others.images)
    scores: dict[str, Any] = {
        "nats": float(bernoulli_nats(logits, others.images)),
        "clean_mse": clean_mse(torch.sigmoid(logits), others),
        "nats_of_mean": float(bernoulli_nats(torch.logit(mean, eps=1e-6), others.images)),
        "clean_mse_of_mean": clean_mse(mean, others),
    }
    for name, part in PARTS.items():
        fit = LinearRegression().fit(known_codes[:, part], known.where[:KNOWN])
        residual = others.where - torch.tensor(fit.predict(codes[:, part]))
        scores[name] = {
            "votes": votes(known_codes[:, part], known.labels[:KNOWN], codes[:, part], others.labels),
            "places": dict(zip(PLACES, (1 - residual.var(0) / others.where.var(0)).tolist(), strict=True)),
            "divergence": certified(codes[:, part], draws[:, part], EPS),
            "divergence_of_draws": certified(more[:, part], draws[:, part], EPS),
        }
    return scores


def clean_mse(means: Tensor, canvases: Canvases) -> float:
    without_salt = 1 - (1 - means) / (1 - SALT)
    return float((without_salt - canvases.clean).square().mean())
