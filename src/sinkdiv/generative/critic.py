"""Learned costs c(x, y) = |f(x) − f(y)| (G18 §4), and what keeps them bounded.

The critic f is trained to make the divergence as large as it can; without a bound the cost would grow for ever.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from sinkdiv.generative.settings import Settings, at_least, one_of, setting
from sinkdiv.generative.tensors import to_device

CLIP = 0.01
PENALTY_WEIGHT = 10.0
# Keeps the slope of the distance defined where two features coincide.
SMALLEST_SQUARE = 1e-12


@dataclass(frozen=True, kw_only=True)
class CriticSettings(Settings):
    """What a user chooses of the critic.

    Attributes:
        critic_features: dimension of the learned cost's features.
        critic_steps: steps of the critic for each of the generator (G18's n_c), each on a batch of its own.
        critic_bound: what keeps the critic bounded: clip (G18), penalty or spectral.
    """

    panel = "Critic of a learned cost"
    only_with = ("cost", "learned")

    critic_features: int = setting("Dimension of a learned cost's features.", default=16, check=at_least(1))
    critic_steps: int = setting("Steps of the critic for one of the generator.", default=1, check=at_least(1))
    critic_bound: str = setting(
        "spectral, penalty, or clip as in the paper.",
        default="spectral",
        check=one_of("clip", "penalty", "spectral"),
    )


def features(critic: nn.Module, samples: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Features (n, k) and (m, k) of samples (n, p) and data (m, p), in one pass: a cost needs one f for both sides.

    A critic that normalises over its batch would otherwise be another function on each side.
    """
    both: Tensor = critic(torch.cat([samples, data]))
    return both[: len(samples)], both[len(samples) :]


@torch.no_grad()
def clip(critic: nn.Module, largest: float = CLIP) -> None:
    """Move every parameter into [−largest, largest] (Arjovsky et al. 2017; G18 §5.3)."""
    for weight in critic.parameters():
        weight.clamp_(-largest, largest)


def normalise(critic: nn.Module) -> None:
    """Divide each weight matrix by its largest singular value, which makes f 1-Lipschitz if it has linear layers only.

    (Miyato et al. 2018.) The singular value is followed by one power iteration in each training pass. A convolution's
    matrix is its kernel (outputs × inputs·height·width), whose norm bounds the convolution's up to a constant.
    """
    for layer in critic.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            parametrizations.spectral_norm(layer)


def slope_penalty(critic: nn.Module, samples: Tensor, data: Tensor, generator: torch.Generator) -> Tensor:
    """Mean of (|∂c(x, y)/∂x| − 1)², for y a sample and x uniform on the segment from it to a data point.

    The gradient penalty of Gulrajani et al. (2017) with the learned cost in the place of their critic: the cost is
    drawn towards growing with slope one between the two distributions.

    Args:
        critic: maps points (n, p) to features (n, k), each on its own: no normalisation over the batch.
        samples, data: points (n, p) and (m, p); the first min(n, m) of each are paired.
        generator: of the places on the segments.
    """
    count = min(len(samples), len(data))
    ends, starts = data[:count].detach(), samples[:count].detach()
    # 1 − [0, 1): never the sample itself, where the distance has no slope.
    times = 1 - torch.rand(count, 1, generator=generator, dtype=torch.float64)
    between = torch.lerp(starts, ends, to_device(times, starts.device, starts.dtype)).requires_grad_()
    apart = critic(between) - critic(starts)
    cost = (apart.square().sum(1) + SMALLEST_SQUARE).sqrt()
    (slope,) = torch.autograd.grad(cost.sum(), between, create_graph=True)
    penalty: Tensor = (slope.norm(dim=1) - 1).square().mean()
    return penalty
