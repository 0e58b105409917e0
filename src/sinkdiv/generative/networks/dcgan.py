"""Convolutional generators and critics in the manner of DCGAN (Radford et al. 2016; G18 §5.3).

They see flat images (n, channels·height·width) in [0, 1]. Each stage doubles or halves both sides, from 4 to 7 pixels
at the coarsest: 32 = 4·2³, 28 = 7·2².
"""

from collections.abc import Sequence

from torch import Tensor, nn

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.networks.base import Architecture, GeneratorArchitecture

SMALLEST_SIDE = 4
STANDARD_DEVIATION = 0.02


def can_halve(image_shape: Sequence[int]) -> bool:
    """Whether these networks can be made for such images."""
    _, height, width = image_shape
    return height % 2 == 0 and width % 2 == 0 and min(height, width) >= 2 * SMALLEST_SIDE


def stages(image_shape: Sequence[int]) -> int:
    """How often both sides can be halved without falling below `SMALLEST_SIDE`.

    Raises:
        InputError: if not once.
    """
    _, height, width = image_shape
    count = 0
    while can_halve((0, height, width)):
        height, width, count = height // 2, width // 2, count + 1
    if count == 0:
        raise InputError(
            f"--network dcgan: images of {width}×{height} pixels; sides must be even and at least {2 * SMALLEST_SIDE}"
        )
    return count


def generator(image_shape: Sequence[int], latent_dim: int, hidden: Sequence[int], width: int) -> nn.Sequential:
    """Latents (n, latent_dim) to flat images in [0, 1]; the finest stage has `width` channels, coarser ones double.

    It has no `hidden` widths.
    """
    channels, height, columns = image_shape
    count = stages(image_shape)
    coarse = (height >> count, columns >> count)
    deep = width << (count - 1)
    layers: list[nn.Module] = [
        nn.Linear(latent_dim, deep * coarse[0] * coarse[1], bias=False),
        nn.Unflatten(1, (deep, *coarse)),
        nn.BatchNorm2d(deep),
        nn.ReLU(),
    ]
    for stage in range(count - 1):
        wide = deep >> stage
        layers += [
            nn.ConvTranspose2d(wide, wide // 2, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(wide // 2),
            nn.ReLU(),
        ]
    layers += [nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1), nn.Sigmoid(), nn.Flatten()]
    return _initialised(nn.Sequential(*layers))


def critic(
    image_shape: Sequence[int], features: int, hidden: Sequence[int], width: int, batch_norm: bool
) -> nn.Sequential:
    """Flat images to features (n, features); the first stage has `width` channels, deeper ones double.

    Args:
        batch_norm: normalise all but the first stage over the batch. The normalisation has no scale and shift of its
            own: a bound on the weights then bounds the features, and they do not vanish where weights are clipped.
    """
    channels, height, columns = image_shape
    count = stages(image_shape)
    layers: list[nn.Module] = [nn.Unflatten(1, (channels, height, columns)), _Centred()]
    inputs = channels
    for stage in range(count):
        outputs = width << stage
        layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1))
        if batch_norm and stage:
            layers.append(nn.BatchNorm2d(outputs, affine=False))
        layers.append(nn.LeakyReLU(0.2))
        inputs = outputs
    coarse = (height >> count) * (columns >> count)
    layers += [nn.Flatten(), nn.Linear(inputs * coarse, features)]
    return _initialised(nn.Sequential(*layers))


class _Centred(nn.Module):
    """[0, 1] to [−1, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        return 2 * images - 1


def _initialised(network: nn.Sequential) -> nn.Sequential:
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(layer.weight, 0.0, STANDARD_DEVIATION)
    return network


DCGAN = Architecture(generator=GeneratorArchitecture(generator, critic))
