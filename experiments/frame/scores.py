"""How near codes are to their prior, and what they keep of neighbourhoods and of classes."""

from __future__ import annotations

from sklearn.manifold import trustworthiness
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor

import sinkdiv

NEIGHBOURS = 10


def certified(codes: Tensor, draws: Tensor, eps: float) -> dict[str, float]:
    """S_ε of two samples with the interval that contains its exact value."""
    divergence = sinkdiv.solve_divergence(codes.double(), draws.double(), eps=eps, tol=1e-4)
    lower, upper = divergence.bounds
    return {"value": float(divergence.value), "lower": float(lower), "upper": float(upper)}


def shown_interval(found: dict[str, float]) -> str:
    """The interval of `certified`, × 1000."""
    return f"[{1000 * found['lower']:.3f}, {1000 * found['upper']:.3f}]"


def neighbourhoods(points: Tensor, codes: Tensor) -> dict[str, float]:
    """Of n points (n, p) and their codes (n, d), with the NEIGHBOURS nearest of each.

    trustworthiness: 1 where neighbours of a code are neighbours of its point, about ½ for a random map.
    continuity: the same the other way round: 1 where neighbours of a point are neighbours of its code.
    kept: the share of a point's nearest neighbours that are its code's nearest too.
    """
    points, codes = points.numpy(), codes.numpy()
    near_points, near_codes = nearest(points), nearest(codes)
    shared = [len(set(one) & set(other)) for one, other in zip(near_points, near_codes, strict=True)]
    return {
        "trustworthiness": float(trustworthiness(points, codes, n_neighbors=NEIGHBOURS)),
        "continuity": float(trustworthiness(codes, points, n_neighbors=NEIGHBOURS)),
        "kept": sum(shared) / NEIGHBOURS / len(points),
    }


def nearest(points):
    """The NEIGHBOURS nearest of each of (n, p), themselves left out: (n, NEIGHBOURS)."""
    return NearestNeighbors(n_neighbors=NEIGHBOURS).fit(points).kneighbors(return_distance=False)


def votes(known: Tensor, labels: Tensor, codes: Tensor, true: Tensor) -> float:
    """The share of codes whose class is that of most of their NEIGHBOURS nearest known ones."""
    classifier = KNeighborsClassifier(NEIGHBOURS).fit(known.numpy(), labels.numpy())
    return float(classifier.score(codes.numpy(), true.numpy()))
