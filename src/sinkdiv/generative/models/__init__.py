"""Models: what is trained. `base` says what every model has.

A new model is a file here, its settings in `config`, and a line in `MODELS`.
"""

from collections.abc import Callable
from typing import Any

from sinkdiv.generative.config import AutoencoderConfig, GeneratorConfig, RunConfig
from sinkdiv.generative.models.autoencoder import Autoencoder
from sinkdiv.generative.models.base import Model
from sinkdiv.generative.models.generator import SinkhornGenerator

__all__ = ["MODELS", "Autoencoder", "Model", "SinkhornGenerator", "make_model"]

MODELS: dict[type[RunConfig], Callable[[Any, int], Model]] = {
    AutoencoderConfig: Autoencoder,
    GeneratorConfig: SinkhornGenerator,
}


def make_model(config: RunConfig, total_steps: int = 1) -> Model:
    """The untrained model that `config` describes; its learning rate reaches zero after `total_steps`."""
    return MODELS[type(config)](config, total_steps)
