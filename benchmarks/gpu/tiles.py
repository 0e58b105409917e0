"""Which tiles are fastest: alternatives to the tables in `sinkdiv.kernels.triton.operands`, for each form of a cost."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any
from unittest import mock

import torch

from benchmarks.frame.rows import Row, failure
from benchmarks.gpu.book import Context
from benchmarks.gpu.device import Device
from sinkdiv.costs import COSTS
from sinkdiv.kernels.triton import operands
from sinkdiv.kernels.triton import reductions as reductions_module
from sinkdiv.kernels.triton.operands import Tile
from sinkdiv.kernels.triton.reductions import MatrixReductions, PointReductions

#: (title, dimension, precision, cost) of what is tuned: a case for each form, and for each way to keep rows.
CASES = (
    ("differences", 3, "high", "sqeuclidean"),
    ("halves, kept", 64, "high", "sqeuclidean"),
    ("halves, in parts", 512, "high", "sqeuclidean"),
    ("rounded, kept", 64, "tf32", "sqeuclidean"),
    ("rounded, in parts", 512, "tf32", "sqeuclidean"),
    ("loop", 64, "high", "euclidean"),
    ("matrix", 3, "high", "matrix"),
)
#: Seconds that are kept for timing.
TIMING_S = 150.0
#: Points that are enough to compile a kernel as it is used for many: with the columns in one part.
FEW = 256
#: Points between which a cost matrix of a gigabyte lies.
MATRIX_POINTS = 16_384
KERNELS = ("softmin, near", "marginals", "self", "gradient")
OF_MATRICES = ("softmin, near", "marginals", "product")


@dataclass(frozen=True)
class Trial:
    """One tile for one kernel in one case."""

    case: tuple[str, int, str, str]
    kernel: str
    tile: Tile

    @property
    def head(self) -> Row:
        tile = self.tile
        return {
            "table": f"{self.case[0]} (d = {self.case[1]}, {self.case[2]}): {self.kernel}",
            "method": f"{tile.rows} × {tile.columns}, {tile.warps} warps, {tile.stages} stages"
            + ("" if tile.registers is None else f", at most {tile.registers} registers"),
        }


def tiles(context: Context) -> Iterator[Row]:
    """A row for each trial. All are compiled first, by many processes; then each is timed alone."""
    trials = list(all_trials(context))
    tasks = [(str(context.device.torch), trial) for trial in trials]
    if context.jobs > 1:
        with multiprocessing.get_context("spawn").Pool(context.jobs) as pool:
            for _ in pool.imap_unordered(prepare, tasks, chunksize=4):
                if context.left() < TIMING_S:
                    break  # the others are compiled when their turn comes
    for trial in trials:
        most = MATRIX_POINTS if trial.case[3] == "matrix" else context.sizes.tuned_points
        yield trial.head | timed(context.device, trial, min(most, context.sizes.tuned_points))


def all_trials(context: Context) -> Iterator[Trial]:
    few = not context.sizes.all_tiles
    for case in CASES[:1] + CASES[-1:] if few else CASES:
        # More loads under way matter where points are loaded in tiles.
        loaded = case[0].startswith(("halves", "rounded"))
        for kernel in OF_MATRICES if case[3] == "matrix" else KERNELS:
            for rows, columns, warps in product((32, 64, 128), (32, 64, 128), (4, 8)):
                # Larger tiles do not fit into registers, smaller ones leave lanes idle.
                fits = 1024 <= rows * columns // (warps // 4) <= 8192 and (kernel != "self" or rows == columns)
                if not fits or (few and (rows, columns) != (32, 32)):
                    continue
                for stages in (2, 3) if loaded else (2,):
                    yield Trial(case, kernel, Tile(rows, columns, warps, stages))
                    if loaded and warps == 8:  # so that a multiprocessor has room for two programs
                        yield Trial(case, kernel, Tile(rows, columns, warps, stages, 128))


def prepare(task: tuple[str, Trial]) -> None:
    """Compile a trial's kernel; what goes wrong is seen again when it is timed."""
    name, trial = task
    timed(Device(name), trial, FEW, most=1)


def timed(device: Device, trial: Trial, n: int, most: int = 20) -> Row:
    try:
        # Few points, too, in the way of many.
        with only(trial.tile), mock.patch.object(reductions_module, "SYMMETRIC_POINTS", 0):
            found = device.timed(call_of(trial, n, device), most=most, enough=0.1)
    except Exception as error:  # a tile that does not fit is a result
        return {"note": failure(error)}
    return {"seconds": found["seconds"], "pairs_per_s": n * n / found["seconds"]}


@contextmanager
def only(tile: Tile) -> Iterator[None]:
    """All tables hold this tile alone."""
    tables = [table for name, table in vars(operands).items() if name.endswith("_TILES")]
    before = [(table, dict(table)) for table in tables]
    try:
        for table, _ in before:
            table.update(dict.fromkeys(table, (tile,)))
        yield
    finally:
        for table, kept in before:
            table.update(kept)


def call_of(trial: Trial, n: int, device: Device) -> Callable[[], Any]:
    _, d, precision, cost = trial.case
    source = torch.Generator(device.torch).manual_seed(0)
    x, y = (torch.randn(1, n, d, generator=source, device=device.torch) for _ in range(2))
    h, eps = x.new_full((1, n), -math.log(n)), x.new_full((1, 1), 0.1 * d)
    pairs: Any
    if cost == "matrix":
        pairs = MatrixReductions(COSTS["sqeuclidean"].matrix(x, y))
    else:
        pairs = PointReductions(x, x if trial.kernel == "self" else y, COSTS[cost], precision=precision)
    f = pairs.softmin(h, eps)
    u = h + f / eps
    calls: dict[str, Callable[[], Any]] = {
        "softmin, near": lambda: pairs.softmin(h, eps, f),
        "self": lambda: pairs.softmin(h, eps, f),
        "marginals": lambda: pairs.marginals(u, h, eps),
        "gradient": lambda: pairs.plan_gradient(u, h, eps),
        "product": lambda: pairs.plan_product(u, h, eps, y),
    }
    return calls[trial.kernel]


SECTIONS = {"tiles": tiles}
