"""How much of a squared distance is lost where it is a matrix product of rounded coordinates (docs/decisions/0013).

    python -m benchmarks.gpu.rounding

writes rounding.md: for each way to round, the root mean square and the largest error of |x|² − 2xy + |y|², relative to
|x|² + |y|², over all pairs of N(0, I) and N(.3, I). Products are added in float64, so that only rounding is seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.frame.tables import page, table

Rounding = Callable[[Tensor], Tensor]


def to_tf32(values: Tensor) -> Tensor:
    """11 significant bits, the nearest."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp((mantissa * 2**11).round(), exponent - 11)


def to_bfloat16(values: Tensor) -> Tensor:
    return values.bfloat16().float()


def to_scaled_float16(values: Tensor) -> Rounding:
    """Rounding to float16 of numbers that a power of two brings near the top of its range."""
    factor = 2.0 ** (15 - int(torch.frexp(values.abs().max()).exponent))
    return lambda part: (part * factor).half().float() / factor


def split(values: Tensor, rounding: Rounding, count: int) -> list[Tensor]:
    """Values as a sum of so many rounded numbers."""
    parts = []
    for _ in range(count):
        parts.append(rounding(values))
        values = values - parts[-1]
    return [part.double() for part in parts]


def errors(x: Tensor, y: Tensor, rounding: Rounding, count: int) -> tuple[float, float]:
    """The errors of costs by products of the parts that matter, with the norms of what the parts stand for."""
    left, right = split(x, rounding, count), split(y, rounding, count)
    pairs = [(i, j) for i in range(count) for j in range(count) if i + j < count]
    products = torch.stack([left[i] @ right[j].T for i, j in pairs]).sum(0)
    return compared(x, y, products, torch.stack(left).sum(0), torch.stack(right).sum(0))


def compared(x: Tensor, y: Tensor, products: Tensor, left: Tensor, right: Tensor) -> tuple[float, float]:
    x, y = x.double(), y.double()
    exact = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    found = left.square().sum(1)[:, None] + right.square().sum(1) - 2 * products
    lost = (found - exact).abs() / (x.square().sum(1)[:, None] + y.square().sum(1))
    return float(lost.square().mean().sqrt()), float(lost.max())


def error_table(dimensions: Sequence[int], points: int) -> Iterator[str]:
    names = [
        "float32, added in float32",
        "TF32",
        "bfloat16, split in two",
        "float16, split in two",
        "TF32, split in two",
    ]
    names.append("bfloat16, split in three")
    rows: dict[str, list[str]] = {name: [] for name in names}
    for d in dimensions:
        source = torch.Generator().manual_seed(d)
        x, y = torch.randn(points, d, generator=source), torch.randn(points, d, generator=source) + 0.3
        x, y = x - y.mean(0), y - y.mean(0)
        half = to_scaled_float16(torch.cat([x, y]))
        found = [
            compared(x, y, (x @ y.T).double(), x.double(), y.double()), errors(x, y, to_tf32, 1),
            errors(x, y, to_bfloat16, 2), errors(x, y, half, 2), errors(x, y, to_tf32, 2), errors(x, y, to_bfloat16, 3),
        ]  # fmt: skip
        for name, (mean, largest) in zip(names, found, strict=True):
            rows[name].append(f"{mean:.1e}, {largest:.1e}")
    return table(["operands", *(f"d = {d}" for d in dimensions)], ([name, *row] for name, row in rows.items()))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for rounding.md")
    parser.add_argument("--points", type=int, default=2000, help="points of each cloud")
    chosen = parser.parse_args(arguments)
    about = f"Errors (root mean square, largest) relative to |x|² + |y|², {chosen.points:,} points each."
    sections = [error_table((16, 64, 512), chosen.points), [f"*torch {torch.__version__}*"]]
    chosen.out.mkdir(parents=True, exist_ok=True)
    text = page("Squared distances by products of rounded coordinates", about, sections)
    (chosen.out / "rounding.md").write_text(text)


if __name__ == "__main__":
    main()
