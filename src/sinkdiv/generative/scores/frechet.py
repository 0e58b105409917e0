"""The Fréchet distance between features of two sets of images."""

from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from sinkdiv.generative.scores.subject import LOWER, Score, Subject


class _Computed(nn.Module):
    """Stands where torchmetrics wants a network: the features are computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """|m − m'|² + tr(Σ + Σ' − 2 (Σ Σ')^½), the squared W2 between Gaussians with the moments of the features.

    Heusel et al. 2017, who called it FID in features of Inception-v3; in other features it needs another name. Lower
    is better; features' units, squared. Estimated from n images it is too large by an amount that falls like 1/n and
    grows with d and with the variance of the features, so only scores from equally many images compare: take thousands,
    never fewer than d. Computed in float64.

    Args:
        features: (n, d) of the images to judge, n ≥ 2.
        reference: (m, d) of real images, m ≥ 2.
    """
    metric = FrechetInceptionDistance(feature=_Computed(features.shape[1]))
    metric.update(reference.double(), real=True)
    metric.update(features.double(), real=False)
    return float(metric.compute())


def _missing(subject: Subject) -> str | None:
    features = subject.reference.features
    if features is None:
        return subject.missing_features()
    few = len(features) <= features.shape[1]
    return f"no FID: {len(features)} images for {features.shape[1]} features" if few else None


FID = Score(
    "samples, FID ({features})",
    2,
    lambda subject: frechet_distance(*subject.features),
    LOWER,
    _missing,
)
