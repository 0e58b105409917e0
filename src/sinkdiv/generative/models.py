"""The table of models: from the settings of a run to its module."""

from collections.abc import Callable
from typing import Any

from sinkdiv.generative.autoencoder import Autoencoder
from sinkdiv.generative.config import AutoencoderConfig, GeneratorConfig, RunConfig
from sinkdiv.generative.generator import SinkhornGenerator
from sinkdiv.generative.model import Model

MODELS: dict[type[RunConfig], Callable[[Any, int], Model]] = {
    AutoencoderConfig: Autoencoder,
    GeneratorConfig: SinkhornGenerator,
}


def make_model(config: RunConfig, total_steps: int = 1) -> Model:
    """The untrained model that `config` describes."""
    return MODELS[type(config)](config, total_steps)
