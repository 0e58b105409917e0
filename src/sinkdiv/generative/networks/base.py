"""What an architecture is: the networks that it makes for models.

Networks see flat images (n, pixels) of an `image_shape` (channels, height, width). Functions that make them raise
`InputError`, naming the option, where sizes and images do not go together.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

Shape = tuple[int, ...]
Widths = tuple[int, ...]


@dataclass(frozen=True)
class AutoencoderArchitecture:
    """The networks of an autoencoder.

    Attributes:
        make: (image_shape, outputs, latent_dim, hidden) to an encoder (n, pixels) → (n, outputs) and a decoder
            (n, latent_dim) → logits (n, pixels). `outputs` are the numbers that a prior or a posterior makes codes of;
            `hidden` are the widths of the encoder's hidden layers (of `conv`, channels), which the decoder mirrors.
        default_hidden: image_shape to widths that suit images of this size.
    """

    make: Callable[[Shape, int, int, Widths], tuple[nn.Module, nn.Module]]
    default_hidden: Callable[[Shape], Widths]


@dataclass(frozen=True)
class GeneratorArchitecture:
    """The networks of a generator. Each architecture has one of two sizes to choose, and leaves the other alone.

    Attributes:
        make: (image_shape, latent_dim, hidden, width) to a network (n, latent_dim) → images (n, pixels) in [0, 1].
            `hidden` are the widths of hidden layers, `width` the channels of the finest stage.
        make_critic: (image_shape, features, hidden, width, batch_norm) to a network (n, pixels) → (n, features), whose
            layers may be normalised over the batch where `batch_norm` says so.
    """

    make: Callable[[Shape, int, Widths, int], nn.Module]
    make_critic: Callable[[Shape, int, Widths, int, bool], nn.Module]


@dataclass(frozen=True)
class Architecture:
    """Networks of one kind: of an autoencoder, of a generator, or of both."""

    autoencoder: AutoencoderArchitecture | None = None
    generator: GeneratorArchitecture | None = None
