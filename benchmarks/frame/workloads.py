"""The inputs of the speed benchmark: pairs of float32 point clouds from a seed, and the blur they are compared at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class Workload:
    """Two clouds x (n, d) and y (m, d), or batches (B, n, d) and (B, m, d), and a blur in the units of the points."""

    title: str
    x: Tensor
    y: Tensor
    blur: float

    @property
    def pairs(self) -> int:
        batch = self.x.shape[0] if self.x.ndim == 3 else 1
        return batch * self.x.shape[-2] * self.y.shape[-2]

    def head(self, n: int) -> Workload:
        """The same problem on the first n points of each cloud: the points are exchangeable."""
        return Workload(self.title, self.x[..., :n, :].contiguous(), self.y[..., :n, :].contiguous(), self.blur)


def cubes(n: int, *, blur: float = 0.05, d: int = 3, batch: tuple[int, ...] = (), seed: int = 0) -> Workload:
    """x uniform on [0, 1]ᵈ, y uniform on [.3, 1.1]ᵈ."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(*batch, n, d, generator=generator)
    y = torch.rand(*batch, n, d, generator=generator) * 0.8 + 0.3
    count = f"{batch[0]} problems " if batch else ""
    return Workload(f"{count}{n} × {n} points, uniform on two cubes in {d}-D, blur {blur:g}", x, y, blur)


def gaussians(n: int, *, d: int = 64, blur: float = 0.5, seed: int = 0) -> Workload:
    """x from N(0, I), y from N(.3, I)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    y = torch.randn(n, d, generator=generator) + 0.3
    return Workload(f"{n} × {n} points, two Gaussians in {d}-D, blur {blur:g}", x, y, blur)


def spheres(n: int, *, d: int = 10, blur: float = 0.3, seed: int = 0) -> Workload:
    """Two samples of the uniform law on the unit sphere: the codes and the prior of an autoencoder."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (normalize(torch.randn(n, d, generator=generator), dim=-1) for _ in range(2))
    return Workload(f"{n} × {n} points on the unit sphere in {d}-D, blur {blur:g}", x, y, blur)


def images(n: int, *, side: int = 28, blur: float = 1.0, seed: int = 0) -> Workload:
    """Vectors of pixels in [0, 1]: strokes of random place, direction and width, thicker ones in y.

    Mostly black and with a bright stroke, like handwritten digits, so that a blur of 1 is a part of their distances.
    """
    generator = torch.Generator().manual_seed(seed)
    grid = torch.linspace(-1, 1, side)
    vertical, horizontal = (axis.flatten() for axis in torch.meshgrid(grid, grid, indexing="ij"))

    def strokes(width: float) -> Tensor:
        center = torch.rand(n, 2, generator=generator) - 0.5
        angle = torch.rand(n, 1, generator=generator) * torch.pi
        right, down = horizontal - center[:, :1], vertical - center[:, 1:]
        along = right * angle.cos() + down * angle.sin()
        across = down * angle.cos() - right * angle.sin()
        widths = width * (0.5 + torch.rand(n, 1, generator=generator))
        return torch.exp(-((across / widths) ** 2) - (along / 0.6) ** 4)

    title = f"{n} × {n} images of {side} × {side} pixels in [0, 1], blur {blur:g}"
    return Workload(title, strokes(0.15), strokes(0.2), blur)
