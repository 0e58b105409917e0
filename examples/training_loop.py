"""A Sinkhorn divergence as the loss of a training loop: a small network learns to draw two moons.

Every step compares a fresh batch of the network with a fresh batch of the data. One sees the divergence fall to about
what two batches of the data have between themselves, which is the best that a network can reach.
"""

import math

import torch
from torch import nn

import sinkdiv

BATCH = 256


def moons(count: int) -> torch.Tensor:
    """Points (count, 2) on two half circles, with a little noise."""
    angle = math.pi * torch.rand(count)
    upper = torch.rand(count) < 0.5
    sign = torch.where(upper, 1.0, -1.0)
    x = sign * angle.cos() + torch.where(upper, 0.0, 1.0)
    y = sign * angle.sin() + torch.where(upper, 0.0, 0.5)
    return torch.stack([x, y], 1) + 0.05 * torch.randn(count, 2)


def main(steps: int = 400) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    # The noise of batches is far larger than a marginal error of 1e-2, so a smaller tolerance would be wasted.
    criterion = sinkdiv.SinkhornDivergence(blur=0.1, tol=1e-2)

    for step in range(steps + 1):
        loss = criterion(network(torch.randn(BATCH, 2)), moons(BATCH))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % (steps // 4) == 0:
            print(f"step {step:4d}: divergence {loss.item():.4f}")

    least = criterion(moons(BATCH), moons(BATCH))
    print(f"two batches of the data: divergence {least.item():.4f}")


if __name__ == "__main__":
    main()
