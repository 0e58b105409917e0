"""Latent losses: how far an encoder's codes of a batch are from draws of the prior. `base` says what one is.

- `SinkhornLoss`   SAE (P19), with `rounding` of plans
- `MMDLoss`        WAE-MMD (Tolstikhin et al. 2018)
- `EnergyLoss`     the energy distance, the Sinkhorn divergence's limit ε → ∞ for the cost |z−z'|
- `SlicedLoss`     SWAE (Kolouri et al. 2018)
- `GaussianLoss`   W2GAE (a baseline of P19 v3)
- `HungarianLoss`  HAE (P19)
"""

from sinkdiv.generative.latent_losses.assignment import HungarianLoss
from sinkdiv.generative.latent_losses.base import LatentLoss
from sinkdiv.generative.latent_losses.gaussian import GaussianLoss
from sinkdiv.generative.latent_losses.mmd import EnergyLoss, MMDLoss
from sinkdiv.generative.latent_losses.sinkhorn import LatentSinkhornSettings, SinkhornLoss
from sinkdiv.generative.latent_losses.sliced import SlicedLoss

__all__ = [
    "EnergyLoss",
    "GaussianLoss",
    "HungarianLoss",
    "LatentLoss",
    "LatentSinkhornSettings",
    "MMDLoss",
    "SinkhornLoss",
    "SlicedLoss",
]
