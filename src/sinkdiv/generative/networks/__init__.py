"""Networks by name. They see flat images (n, pixels) and codes or latents (n, d).

A new architecture is a file and a line in `NETWORKS`.
"""

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.networks import convolutional, dcgan, perceptron, spatial_transformer
from sinkdiv.generative.networks.base import Architecture, AutoencoderArchitecture, GeneratorArchitecture

NETWORKS: dict[str, Architecture] = {
    "mlp": perceptron.MLP,
    "conv": convolutional.CONV,
    "spatial-transformer": spatial_transformer.SPATIAL_TRANSFORMER,
    "dcgan": dcgan.DCGAN,
}
OF_AUTOENCODERS = {name: made.autoencoder for name, made in NETWORKS.items() if made.autoencoder}
OF_GENERATORS = {name: made.generator for name, made in NETWORKS.items() if made.generator}


def autoencoder_networks(name: str) -> AutoencoderArchitecture:
    """The encoder and decoder called `name`; raises `InputError` when there are none."""
    if name not in OF_AUTOENCODERS:
        raise InputError(f"--network {name}: unknown network; choose one of {', '.join(OF_AUTOENCODERS)}")
    return OF_AUTOENCODERS[name]


def generator_networks(name: str) -> GeneratorArchitecture:
    """The generator and critic called `name`; raises `InputError` when there are none."""
    if name not in OF_GENERATORS:
        raise InputError(f"--network {name}: unknown network; choose one of {', '.join(OF_GENERATORS)}")
    return OF_GENERATORS[name]
