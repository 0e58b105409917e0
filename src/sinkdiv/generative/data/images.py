"""Images by name, from a folder, a zip or an array, split once into training and held-out images."""

import functools
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sinkdiv.generative.data.image_files import read_array, read_folder, read_zip
from sinkdiv.generative.data.named import DATASETS, Source
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.seeds import Stream, generator
from sinkdiv.generative.tensors import mean_squared_distance

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

    @functools.cached_property
    def mean_squared_distance(self) -> float:
        """E|y−y'|² of the training images: the scale of costs between images."""
        return mean_squared_distance(self.train)


def load_images(name: str, *, binarize: bool = False) -> Images:
    """Read the images called `name`: a known name, or the path of a folder, `.zip`, `.npz` or `.npy`.

    With `binarize`, pixels above one half become 1 and the others 0.

    Sources without test images of their own give up a tenth, chosen by a fixed seed so that runs compare.

    Raises:
        InputError: for an unknown name, a missing path, broken or mixed images, with a line naming the culprit.
    """
    path = Path(name).expanduser()
    if name in DATASETS:
        source = DATASETS[name].load()
    elif path.exists():
        name, source = str(path.resolve()), _read_path(path)
    else:
        raise InputError(f"--data {name}: neither a known name ({', '.join(DATASETS)}) nor an existing file or folder")
    if len(source.images) < SMALLEST_DATASET:
        raise InputError(f"--data {name}: {len(source.images)} images; at least {SMALLEST_DATASET} are needed")
    if binarize:
        source = replace(source, images=source.images > 0.5)
    return _split(name, source)


def _read_path(path: Path) -> Source:
    if path.is_dir():
        return Source(*read_folder(path))
    match path.suffix.lower():
        case ".zip":
            return Source(*read_zip(path))
        case ".npz" | ".npy":
            return Source(*read_array(path))
    raise InputError(f"--data {path}: expected a folder, .zip, .npz or .npy")


def _split(name: str, source: Source) -> Images:
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
