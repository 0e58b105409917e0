"""Batches of images, as a trainer asks for them."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sinkdiv.generative.data.images import Images
from sinkdiv.generative.seeds import Stream, generator


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
