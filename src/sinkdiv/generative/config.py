"""What a training run is: its settings, checked once, and the file they are kept in."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import yaml

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.files import write_text
from sinkdiv.generative.priors import make_prior

MODEL = "autoencoder"
ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides where a run ends, beside the versions of the software.

    Attributes:
        data: a data set's name, or the absolute path of a folder, zip or array of images.
        data_fingerprint: digest of the images, so that a run is not continued on others.
        image_shape: (channels, height, width).
        prior: name of the latent prior.
        latent_dim: dimension d of the codes.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        beta: weight of the latent divergence against the reconstruction, nats per squared latent distance.
        eps: regularisation of the latent divergence, in units of squared latent distance.
        batch_size: images in a step, and draws from the prior.
        lr: Adam's step size at the start; it falls to zero along half a cosine.
        max_epochs: passes over the training images.
        seed: of the weights, the order of the images and the draws from the prior.
        accelerator: auto, cpu or gpu.
    """

    data: str
    data_fingerprint: str
    image_shape: tuple[int, ...]
    prior: str
    latent_dim: int
    hidden: tuple[int, ...]
    beta: float
    eps: float
    batch_size: int
    lr: float
    max_epochs: int
    seed: int
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        make_prior(self.prior)
        _require(self.latent_dim >= 2, "--latent-dim", self.latent_dim, "at least 2")
        _require(len(self.hidden) > 0 and min(self.hidden) >= 1, "--hidden", self.hidden, "widths like 512,512")
        _require(math.isfinite(self.beta) and self.beta >= 0, "--beta", self.beta, "zero or more")
        _require(math.isfinite(self.eps) and self.eps > 0, "--eps", self.eps, "more than zero")
        _require(self.batch_size >= 2, "--batch-size", self.batch_size, "at least 2")
        _require(math.isfinite(self.lr) and self.lr > 0, "--lr", self.lr, "more than zero")
        _require(self.max_epochs >= 1, "--max-epochs", self.max_epochs, "at least 1")
        _require(0 <= self.seed < 2**63, "--seed", self.seed, "between 0 and 2^63 - 1")
        _require(self.accelerator in ACCELERATORS, "--accelerator", self.accelerator, " or ".join(ACCELERATORS))

    @property
    def pixels(self) -> int:
        """Numbers in one image, over all channels."""
        return math.prod(self.image_shape)

    def save(self, path: Path) -> None:
        """Write the settings to `path` as YAML, atomically."""
        content = {"model": MODEL} | asdict(self)
        content |= {"image_shape": list(self.image_shape), "hidden": list(self.hidden)}
        write_text(path, yaml.safe_dump(content, sort_keys=False))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; raises `InputError` naming the file when it is something else."""
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{path}: not a readable configuration ({type(error).__name__})") from error
        if not isinstance(content, dict) or content.pop("model", None) != MODEL:
            raise InputError(f"{path}: not the configuration of a sinkdiv {MODEL} run")
        if content.keys() != {field.name for field in fields(cls)}:
            odd = sorted(str(key) for key in content.keys() ^ {field.name for field in fields(cls)})
            raise InputError(f"{path}: missing or unknown settings: {', '.join(odd)}")
        return cls(**_typed(path, content))


def _require(condition: bool, option: str, value: object, expected: str) -> None:
    if not condition:
        raise InputError(f"{option} {value}: expected {expected}")


_CASTS: dict[object, Callable[[Any], Any]] = {
    int: int,
    float: float,
    str: str,
    tuple[int, ...]: lambda values: tuple(int(value) for value in values),
}


def _typed(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """YAML's values as the types of the fields, refusing what cannot be meant (`latent_dim: ten`)."""
    typed: dict[str, Any] = {}
    for field in fields(TrainingConfig):
        try:
            typed[field.name] = _CASTS[field.type](content[field.name])
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: {field.name}: {content[field.name]!r} is not valid") from error
    return typed
