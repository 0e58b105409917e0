"""A cost that is learned: features that tell two samples apart as clearly as they can.

The two samples have the same means and variances and differ only in the correlation of two of ten coordinates. Under
|x − y|² this is lost among the others. One sees that a direction which is trained to increase the divergence becomes
that of the first two coordinates, in which the samples differ.
"""

import torch
from torch import nn

import sinkdiv


def sample(count: int, correlation: float) -> torch.Tensor:
    """Normal points (count, 10), the first two coordinates of which are correlated."""
    points = torch.randn(count, 10)
    points[:, 1] = correlation * points[:, 0] + (1 - correlation**2) ** 0.5 * points[:, 1]
    return points


def divergences(features: nn.Module, count: int) -> tuple[float, float]:
    """Between samples of the two kinds, and between two samples of one kind, which differ by chance only."""
    with torch.no_grad():
        first, second = sample(count, 0.9), sample(count, -0.9)
        different = sinkdiv.sinkhorn_divergence(first, second, blur=0.3, cost=features)
        same = sinkdiv.sinkhorn_divergence(first, sample(count, 0.9), blur=0.3, cost=features)
    return different.item(), same.item()


def main(count: int = 300, steps: int = 150) -> None:
    torch.manual_seed(0)
    # One feature, a direction of length 1.
    features = nn.utils.parametrizations.weight_norm(nn.Linear(10, 1, bias=False))
    features.parametrizations.weight.original0.requires_grad_(False).fill_(1.0)
    optimiser = torch.optim.Adam([p for p in features.parameters() if p.requires_grad], lr=3e-2)
    different, same = divergences(features, count)
    print(f"under a random direction: different samples {different:.4f}, equal ones {same:.4f}")
    for _ in range(steps):
        loss = -sinkdiv.sinkhorn_divergence(sample(count, 0.9), sample(count, -0.9), blur=0.3, cost=features)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    different, same = divergences(features, count)
    print(f"under the learned one: different samples {different:.4f}, equal ones {same:.4f}")
    print(f"its coordinates: {[round(value, 2) for value in features.weight.flatten().tolist()]}")


if __name__ == "__main__":
    main()
