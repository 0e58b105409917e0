"""A Sinkhorn divergence as the loss of a training loop: a small network learns to draw two moons.

Every step compares a fresh batch of the network with a fresh batch of the data. One sees the divergence fall towards
what two batches of the data have between themselves, which is the best that a network can reach. One pair of batches
says little, since its divergence changes a lot from draw to draw; so means over many are printed.
"""

import math

import torch
from torch import nn

import sinkdiv

BATCH = 256
# Divergences in one printed mean.
MEAN_OF = 50


def moons(count: int) -> torch.Tensor:
    """Points (count, 2) on two half circles, with a little noise."""
    angle = math.pi * torch.rand(count)
    upper = torch.rand(count) < 0.5
    sign = torch.where(upper, 1.0, -1.0)
    x = sign * angle.cos() + torch.where(upper, 0.0, 1.0)
    y = sign * angle.sin() + torch.where(upper, 0.0, 0.5)
    return torch.stack([x, y], 1) + 0.05 * torch.randn(count, 2)


def mean(divergences: list[torch.Tensor]) -> str:
    """Their mean, with its standard error."""
    values = torch.stack(divergences)
    return f"{values.mean():.4f} ± {values.std() / len(values) ** 0.5:.4f}"


def main(steps: int = 400) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    # The noise of batches is far larger than a marginal error of 1e-2, so a smaller tolerance would be wasted.
    criterion = sinkdiv.SinkhornDivergence(blur=0.1, tol=1e-2)

    losses = []
    for step in range(1, steps + 1):
        loss = criterion(network(torch.randn(BATCH, 2)), moons(BATCH))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
        if step % (steps // 4) == 0:
            print(f"step {step:4d}: divergence {mean(losses[-MEAN_OF:])}")

    least = [criterion(moons(BATCH), moons(BATCH)) for _ in range(MEAN_OF)]
    print(f"two batches of the data: divergence {mean(least)}")


if __name__ == "__main__":
    main()
