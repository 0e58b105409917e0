"""What every training run is decided by."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sinkdiv.generative.data import DATASETS, Images, default_max_epochs
from sinkdiv.generative.settings import (
    ABOVE_ZERO,
    Alias,
    Check,
    Settings,
    at_least,
    one_of,
    require,
    setting,
)

ACCELERATORS = ("auto", "cpu", "gpu")
#: Of codes and latents.
MOST_DIMENSIONS = 65_536


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings, abc.ABC):
    """What every run has; with its model's own settings, everything that decides where it ends.

    Attributes:
        data: a data set's name, or the absolute path of a folder, zip or array of images.
        data_fingerprint: digest of the images, so that a run is not continued on others.
        image_shape: (channels, height, width).
        binarize: whether pixels are rounded to 0 and 1.
        batch_size: images in a step, over all devices.
        lr: the optimiser's step size at the start.
        max_epochs: passes over the training images.
        seed: of the weights, the order of the images and every draw.
        accelerator: auto, cpu or gpu.
        devices: processes on this machine that share each batch. Losses see all of it; batch normalisation does on
            GPUs, on CPUs it sees a process' own part.
        precision: of the networks, float32, or mixed with bfloat16 or float16; losses are always float32.
    """

    panel = "Data and training"
    #: The model's name: in `config.yaml`, and as the command `sinkdiv train NAME`.
    model: ClassVar[str]
    #: What the command does, for its `--help`.
    about: ClassVar[str] = ""
    #: Options of the command that say a setting in other words, by name.
    aliases: ClassVar[Mapping[str, Alias]] = {}

    data: str = setting(f"{', '.join(DATASETS)}, or a folder, .zip, .npz or .npy of images.", default="mnist-5k")
    data_fingerprint: str = setting(derive=lambda draft: draft.images.fingerprint)
    image_shape: tuple[int, ...] = setting(
        derive=lambda draft: draft.images.shape,
        check=Check(lambda shape: len(shape) == 3, "channels, height and width"),
    )
    binarize: bool = setting("Round pixels to 0 and 1.", default=False)
    batch_size: int = setting("Images in a step, over all devices.", default=128, check=at_least(2))
    lr: float = setting("The optimiser's step size.", default=1e-3, check=ABOVE_ZERO)
    max_epochs: int = setting(
        "Passes over the images.",
        derive=lambda draft: default_max_epochs(draft.data),
        shown="by data",
        check=at_least(1),
        changeable=True,
    )
    seed: int = setting(
        "Of the weights, the order of images and every draw.",
        default=0,
        check=Check(lambda seed: 0 <= seed < 2**63, "between 0 and 2^63 - 1"),
    )
    accelerator: str = setting("auto, cpu or gpu.", default="auto", check=one_of(*ACCELERATORS), changeable=True)
    devices: int = setting(
        "Processes that share each batch; losses see all of it.", default=1, check=at_least(1), changeable=True
    )
    precision: str = setting(
        "float32, or mixed: bfloat16 or float16.", default="float32", check=one_of("float32", "bfloat16", "float16")
    )

    def check_together(self) -> None:
        super().check_together()
        require(self.batch_size % self.devices == 0, "batch_size", self.batch_size, f"a multiple of {self.devices}")

    @classmethod
    def check_images(cls, images: Images) -> None:
        """Raise `InputError` where there is nothing that such a model could learn from these images."""

    @property
    def pixels(self) -> int:
        """Numbers in one image, over all channels."""
        return math.prod(self.image_shape)

    @property
    def turns(self) -> int:
        """Batches for one step of the network that makes images."""
        return 1

    @property
    def trains_samples(self) -> bool:
        """Whether draws from the prior are trained to become images: those of a plain autoencoder are not."""
        return True

    @property
    @abc.abstractmethod
    def described(self) -> tuple[str, str]:
        """A title and a line about the model, for reports."""
