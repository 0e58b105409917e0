"""Digits at random places and sizes on a larger canvas, under salt: white pixels that lie anywhere (P19).

    python -m experiments.probabilistic_program.canvases --out canvases.npz

writes what `sinkdiv train autoencoder --network spatial-transformer --data canvases.npz` reads, and where each digit
lies.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sinkdiv.generative.data import load_images
from sinkdiv.generative.files import replacing
from sinkdiv.generative.networks.spatial_transformer import SQUARE, WHERE, place, placement

SIDE = 50
SALT = 0.02
#: Places at which each digit is shown.
COPIES = {"mnist-5k": 4, "mnist": 1}


@dataclass(frozen=True)
class Canvases:
    """Images and what is known of them.

    `images` and `clean`, without the salt, are (n, SIDE²) in steps of 1/255; `labels` (n,); `where` (n, 3) are the
    standard normal numbers of size, right and down (see `spatial_transformer.placement`).
    """

    images: Tensor
    clean: Tensor
    labels: Tensor
    where: Tensor


def make(digits: Tensor, labels: Tensor, copies: int, seed: int) -> Canvases:
    """Each of the digits (n, 28²) at `copies` places, a pure function of the arguments."""
    source = torch.Generator().manual_seed(seed)
    count = copies * len(digits)
    where = torch.randn(count, WHERE, generator=source)
    salt = torch.rand(count, SIDE**2, generator=source) < SALT
    squares = digits.repeat(copies, 1).reshape(-1, 1, SQUARE, SQUARE)
    # Some thousand at a time, for the memory of the interpolation.
    parts = zip(squares.split(2000), where.split(2000), strict=True)
    canvas = (SIDE, SIDE)
    clean = torch.cat([place(square, *placement(part, canvas), canvas).flatten(1) for square, part in parts])
    clean = (clean * 255).round().div(255).clamp(0, 1)
    return Canvases(clean.masked_fill(salt, 1.0), clean, labels.repeat(copies), where)


def of(data: str) -> tuple[Canvases, Canvases]:
    """Of the training digits called `data`, and of its held-out ones at one place each."""
    images = load_images(data)
    known = make(images.train, images.train_labels, COPIES[data], seed=0)
    return known, make(images.held_out, images.held_out_labels, 1, seed=1)


def write(path: Path, canvases: Canvases) -> None:
    pixels = (canvases.images * 255).round().byte().reshape(-1, SIDE, SIDE).numpy()
    with replacing(path) as temporary:
        np.savez_compressed(temporary, images=pixels, labels=canvases.labels.numpy(), where=canvases.where.numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("canvases.npz"))
    parser.add_argument("--digits", choices=COPIES, default="mnist-5k")
    options = parser.parse_args()
    write(options.out, of(options.digits)[0])


if __name__ == "__main__":
    main()
