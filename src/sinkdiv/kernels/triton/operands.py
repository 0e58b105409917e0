"""The form in which kernels read points and matrices, and the sizes of their tiles.

Squared distances in more than a few dimensions are matrix products of centred coordinates, on tensor cores. ``"high"``
writes each coordinate as the sum of two float16 numbers (22 bits, after a power of two has brought the largest near the
top of their range) and multiplies three times; ``"tf32"`` rounds coordinates to 11 bits and multiplies once. Norms are
those of the rounded points, so that a cost is the exact one of points that have moved by a relative 2⁻²³ or 2⁻¹²
(docs/decisions/0013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sinkdiv.costs import LOW_DIMENSION, Cost, Euclidean, SquaredEuclidean
from sinkdiv.kernels.triton.tiles import LONGEST, Form, Function

#: Up to this dimension a program keeps all coordinates of its rows. Beyond it, it takes CHUNK of them at a time.
KEPT_DIMENSION = 128
CHUNK = 64

#: A power of two brings the largest coordinate below 2 to this power, half of the largest float16 number.
TOP = 15

#: The exponents of these powers of two are at most this large, positive or negative.
LARGEST_SHIFT = 60


@dataclass(frozen=True)
class Tile:
    """Rows and columns of a tile, the warps that share it, how many loads are under way, registers of a thread."""

    rows: int
    columns: int
    warps: int
    stages: int
    registers: int | None = None
    """A bound, so that a multiprocessor holds more programs. If omitted, the compiler decides."""

    @cached_property
    def options(self) -> dict[str, int | bool]:
        """The options with which a kernel with such tiles is compiled and launched."""
        options: dict[str, int | bool] = {
            "BM": self.rows, "BN": self.columns, "num_warps": self.warps, "num_stages": self.stages,
            "enable_fp_fusion": True,
        }  # fmt: skip
        if self.registers is not None and torch.version.hip is None:
            options["maxnreg"] = self.registers
        return options


#: Tiles, by form and by whether numbers are float64. The best comes first.
Table = dict[tuple[Form, bool], tuple[Tile, ...]]

#: For sums over the columns, by form and by whether numbers are float64. The first tile whose shared memory the device
#: has is taken. docs/decisions/0013 counts registers and instructions.
SUM_TILES: Table = {
    (Form.DIFFERENCES, False): (Tile(32, 128, 4, 2),),
    (Form.LOOP, False): (Tile(64, 64, 4, 2),),
    (Form.MATRIX, False): (Tile(32, 128, 4, 3),),
    (Form.HALVES, False): (Tile(128, 64, 8, 3), Tile(128, 64, 8, 2), Tile(64, 32, 4, 2)),
    (Form.ROUNDED, False): (Tile(128, 64, 8, 3), Tile(128, 64, 8, 2), Tile(64, 32, 4, 2)),
    (Form.DIFFERENCES, True): (Tile(32, 32, 4, 2),),
    (Form.LOOP, True): (Tile(32, 64, 4, 2),),
    (Form.MATRIX, True): (Tile(32, 64, 4, 3),),
}

#: Softmins in up to `FEW` dimensions where tensor cores work asynchronously: two programs fit a multiprocessor, and one
#: multiplies while the other takes exponentials.
FEW = 64
SOFTMIN_TILES: Table = {
    (Form.HALVES, False): (Tile(128, 64, 8, 3, registers=128), Tile(128, 64, 8, 2), Tile(64, 32, 4, 2)),
    (Form.ROUNDED, False): (Tile(128, 64, 8, 3, registers=128), Tile(128, 64, 8, 2), Tile(64, 32, 4, 2)),
}

#: For sums that use the symmetry of a problem: square ones.
SYMMETRIC_TILES: Table = {
    (Form.DIFFERENCES, False): (Tile(64, 64, 4, 2),),
    (Form.LOOP, False): (Tile(64, 64, 4, 2),),
    (Form.HALVES, False): (Tile(64, 64, 4, 3), Tile(64, 64, 4, 2), Tile(32, 32, 4, 1)),
    (Form.ROUNDED, False): (Tile(64, 64, 4, 3), Tile(64, 64, 4, 2), Tile(32, 32, 4, 1)),
    (Form.DIFFERENCES, True): (Tile(32, 32, 4, 2),),
    (Form.LOOP, True): (Tile(32, 32, 4, 2),),
}

#: For products, which hold a second tile, and a result of many columns.
PRODUCT_TILES: Table = {
    (Form.DIFFERENCES, False): (Tile(64, 32, 4, 2),),
    (Form.LOOP, False): (Tile(64, 32, 4, 2), Tile(32, 32, 4, 2)),
    (Form.MATRIX, False): (Tile(32, 64, 4, 2), Tile(32, 32, 4, 2)),
    (Form.HALVES, False): (Tile(128, 32, 8, 2), Tile(64, 32, 4, 2), Tile(32, 32, 4, 1)),
    (Form.ROUNDED, False): (Tile(128, 32, 8, 2), Tile(64, 32, 4, 2), Tile(32, 32, 4, 1)),
    (Form.DIFFERENCES, True): (Tile(32, 32, 4, 2),),
    (Form.LOOP, True): (Tile(32, 32, 4, 1),),
    (Form.MATRIX, True): (Tile(32, 32, 4, 1),),
}


class Points:
    """Points (B, n, d) as the kernels read them; each layout is made when it is first asked for."""

    def __init__(self, points: Tensor, precision: str) -> None:
        self.points, self._precision = points.contiguous(), precision

    @cached_property
    def planar(self) -> Tensor:
        """(B, d, n): coordinate by coordinate."""
        return planar(self.points)

    @cached_property
    def padded(self) -> Tensor:
        """(B, N, D), padded with zeros to the sizes that tiles of products need."""
        _, n, d = self.points.shape
        return torch.nn.functional.pad(self.points, (0, padded_dimension(d) - d, 0, padded_count(n) - n))

    @cached_property
    def factor(self) -> Tensor:
        """The power of two (B,) that coordinates in float16 are multiplied by."""
        if self._precision == "tf32":
            return torch.ones_like(self.points[:, 0, 0])
        largest = self.points.abs().amax((1, 2))
        shift = (TOP - torch.frexp(largest).exponent).clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
        return torch.where(largest > 0, torch.ldexp(torch.ones_like(largest), shift), 1.0)

    @cached_property
    def products(self) -> tuple[Tensor, Tensor, Tensor]:
        """(high, low, norms): the operands of products, and |x|² (B, N) of the points that they stand for."""
        return *self.rounded, self.dots(self)

    @cached_property
    def rounded(self) -> tuple[Tensor, Tensor]:
        """(high, low), whose sum is the coordinates times the factor. For TF32 both are the rounded coordinates."""
        if self._precision == "tf32":
            one = rounded_to_tf32(self.padded)
            return one, one
        scaled = self.padded * self.factor[:, None, None]
        high = scaled.half()
        return high, (scaled - high).half()

    def dots(self, other: Points) -> Tensor:
        """The products x_i·x'_i (B, N) with as many other points, both as they are rounded."""
        return (self._represented() * other._represented()).sum(-1).float()

    def _represented(self) -> Tensor:
        high, low = self.rounded
        return high.double() if high is low else (high.double() + low.double()) / self.factor[:, None, None]


def planar(points: Tensor) -> Tensor:
    """Points (B, n, d) coordinate by coordinate, (B, d, n)."""
    return points.mT.contiguous()


def padded_count(n: int) -> int:
    """The number of points, rounded up to the tiles of products."""
    longest = int(LONGEST.value)
    return math.ceil(n / longest) * longest


def padded_dimension(d: int) -> int:
    """The number of coordinates, rounded up to the tiles of products."""
    return 2 ** max(4, math.ceil(math.log2(d))) if d <= KEPT_DIMENSION else math.ceil(d / CHUNK) * CHUNK


def rounded_to_tf32(values: Tensor) -> Tensor:
    """float32 numbers rounded to the 11 significant bits of TF32, to nearest, ties to even."""
    bits = values.view(torch.int32)
    half = 0xFFF + ((bits >> 13) & 1)
    return ((bits + half) & ~0x1FFF).view(torch.float32)


@dataclass(frozen=True)
class Operands:
    """What every kernel reads of a batch (B, n, m), besides the vectors of its reduction."""

    form: Form
    function: Function
    power: float
    shape: tuple[int, int, int]
    dimension: int
    pointers: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
    scales: Tensor
    strides: tuple[int, int, int] = (0, 0, 0)

    @property
    def wide(self) -> bool:
        return self.pointers[0].dtype == torch.float64

    @property
    def softmin_tiles(self) -> Table:
        """Tiles for a softmin."""
        shared = self.dimension <= FEW and multiplies_asynchronously(self.scales.device)
        return SUM_TILES | SOFTMIN_TILES if shared else SUM_TILES

    def padded(self, h: Tensor) -> Tensor:
        """A vector (B, m), padded with −∞ to the number of points that kernels read."""
        if not self.multiplied:
            return h.contiguous()
        return torch.nn.functional.pad(h, (0, padded_count(h.shape[1]) - h.shape[1]), value=-torch.inf).contiguous()

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(n, m, d)."""
        return self.shape[1], self.shape[2], self.dimension

    @cached_property
    def streamed_constants(self) -> dict[str, object]:
        """The `constants` for a kernel that does not keep the coordinates of its rows."""
        constants = self.constants
        return constants | {"D": min(CHUNK, self.dimension), "RESIDENT": False} if self.multiplied else constants

    @property
    def multiplied(self) -> bool:
        """Whether costs come from products of points."""
        return self.form >= Form.HALVES

    @cached_property
    def constants(self) -> dict[str, object]:
        """The constants that a kernel is compiled for."""
        kept = not self.multiplied or self.dimension <= KEPT_DIMENSION
        few = self.form == Form.DIFFERENCES or (kept and self.multiplied)
        return {
            "FORM": int(self.form), "FUNCTION": int(self.function), "POWER": self.power,
            "D": self.dimension if few else CHUNK, "RESIDENT": kept,
        }  # fmt: skip


def of_points(x: Points, y: Points, cost: Cost, precision: str) -> Operands:
    """The operands for a cost between points."""
    (batch, n, d), m = x.points.shape, y.points.shape[1]
    shape, function, power = (batch, n, m), function_of(cost), float(cost.exponent)
    if isinstance(cost, SquaredEuclidean) and d > LOW_DIMENSION and x.points.dtype == torch.float32:
        scales = -2 / (x.factor * y.factor)
        form = Form.ROUNDED if precision == "tf32" else Form.HALVES
        return Operands(form, function, power, shape, padded_dimension(d), (*x.products, *y.products), scales)
    ones = torch.ones(batch, dtype=torch.float32, device=x.points.device)
    form = Form.DIFFERENCES if d <= LOW_DIMENSION else Form.LOOP
    left, right = x.planar, y.planar
    return Operands(form, function, power, shape, d, (left, left, left, right, right, right), ones)


def of_matrix(C: Tensor) -> Operands:
    """The operands of a stored matrix (B, n, m) of any strides."""
    batch, n, m = C.shape
    ones = torch.ones(batch, dtype=torch.float32, device=C.device)
    strides = (C.stride(0), C.stride(1), C.stride(2))
    return Operands(Form.MATRIX, Function.SQUARE, 2.0, (batch, n, m), 1, (C, C, C, C, C, C), ones, strides)


def multiplies_asynchronously(device: torch.device) -> bool:
    """Whether a GPU's tensor cores work while its programs go on: since compute capability 9."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)


def function_of(cost: Cost) -> Function:
    """The cost as a function of the squared distance."""
    if isinstance(cost, SquaredEuclidean):
        return Function.SQUARE
    return Function.ROOT if isinstance(cost, Euclidean) else Function.POWER
