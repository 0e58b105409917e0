"""Mixed precision: networks may compute in 16 bits; codes, geometry and losses do not.

In 16 bits a coordinate is known to 1e-3 or worse, and a latent loss is a difference of numbers much larger than it.
"""

import torch
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    """In float32 if it has 16 bits, differentiably; else as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
