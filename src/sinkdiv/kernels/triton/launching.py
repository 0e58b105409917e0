"""How a kernel is launched: the choice of tiles that fit the device, the number of programs, memory for results."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from sinkdiv.kernels.triton.operands import Operands, Table, Tile

#: Programs that are wanted for each multiprocessor. Where blocks of rows make fewer, the columns are cut into parts.
PROGRAMS = 4

#: Least number of tiles of columns in a part.
PART_TILES = 4

#: Most parts: their results are joined one after the other.
MOST_PARTS = 64

Counts = tuple[Tensor, Tensor]


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """A context in which kernels are launched on the device of this tensor."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


class Launches:
    """Launches of kernels over the pairs of a batch; ``counts`` (B,) tell how many rows and columns are real."""

    def __init__(self, operands: Operands, counts: Counts | None) -> None:
        self.operands, self.given_counts = operands, counts

    def run(
        self, kernel: Any, inputs: tuple[Tensor, ...], outputs: Callable[[int], tuple[Tensor, ...]],
        table: Table, integers: tuple[int, ...] = (), *, groups: int = 1,
        most_parts: int = MOST_PARTS, folded: bool = False, keeps: bool = True, **constants: object,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Launch with the first tile of a table that fits the device, and return the outputs.

        ``outputs(parts)`` allocates the results of so many parts of the columns. ``groups`` is the third dimension of
        the grid. A ``folded`` launch has one program for two blocks of rows. With ``keeps`` a program holds the
        coordinates of its rows in registers. If WHOLE is among the constants, it is set to whether there is one part.
        """
        operands = self.operands
        batch, n, _ = operands.shape
        inputs = tuple(tensor.contiguous() for tensor in inputs)
        shared = operands.constants if keeps else operands.streamed_constants
        tiles = table[operands.form, operands.wide]
        for tile in tiles:
            blocks = math.ceil(n / tile.rows)
            programs = batch * (math.ceil(blocks / 2) if folded else blocks)
            parts = self._parts(tile, programs, most_parts)
            made = outputs(parts)
            if "WHOLE" in constants:
                constants["WHOLE"] = parts == 1
            try:
                with on_device(operands.scales):
                    kernel[(programs, parts, groups)](
                        *operands.pointers, *inputs, *self._counts, operands.scales, *made, *operands.sizes, *integers,
                        blocks, *operands.strides, **shared, **constants, **tile.options,
                    )  # fmt: skip
            except OutOfResources:
                if tile is tiles[-1]:
                    raise
            else:
                break
        return made

    @cached_property
    def _counts(self) -> Counts:
        """How many rows and columns of each problem are real, (B,) each."""
        if self.given_counts is not None:
            rows, columns = self.given_counts
            return rows.to(torch.int32), columns.to(torch.int32)
        batch, n, m = self.operands.shape
        full = self.operands.scales.new_full
        return full((batch,), n, dtype=torch.int32), full((batch,), m, dtype=torch.int32)

    def _parts(self, tile: Tile, programs: int, most: int) -> int:
        """The number of parts that the columns are cut into, so that all multiprocessors have work."""
        wanted = math.ceil(PROGRAMS * _multiprocessors(self.operands.scales.device) / programs)
        return max(1, min(wanted, math.ceil(self.operands.shape[2] / tile.columns) // PART_TILES, most))

    def new(self, *shape: int) -> Tensor:
        """Memory for results. Where some rows are padding it holds zeros, for no kernel writes there."""
        make = torch.empty if self.given_counts is None else torch.zeros
        dtype = torch.float64 if self.operands.wide else torch.float32
        return make(shape, dtype=dtype, device=self.operands.scales.device)
