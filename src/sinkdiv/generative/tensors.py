"""Small helpers for tensors: where they are, how many bits their numbers have, how far apart points are."""

import torch
from torch import Tensor

#: Devices whose copies are waited for: on MPS the source may change before it is read.
BLOCKING = ("cpu", "mps")
#: Points that are enough to measure how far apart those of a large set are.
POINTS_MEASURED = 2000


def to_device(numbers: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The numbers on the device that trains, in the dtype (their own if omitted). All are drawn on the CPU.

    The host does not wait for a GPU to receive them: CUDA copies memory that is not pinned aside before it returns.
    """
    return numbers.to(dtype or numbers.dtype).to(device, non_blocking=device.type not in BLOCKING)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it has 16 bits, differentiably; else as it is.

    Under mixed precision networks compute in 16 bits; codes, geometry and losses do not. In 16 bits a coordinate is
    known to 1e-3 or worse, and a latent loss is a difference of numbers much larger than it.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def mean_squared_distance(points: Tensor) -> float:
    """E|x−x'|² over all pairs of points (n, d), or of some 2,000 of them; pairs of a point with itself included."""
    some = points[:: max(1, len(points) // POINTS_MEASURED)]
    return 2 * float(some.detach().double().var(0, correction=0).sum())
