"""Summarise a large cloud by a few weighted points.

Points and weights are both learned: the divergence is differentiable in either, and a softmax keeps the mass at 1. One
sees 20 points that represent 1,000 far better than 20 of those chosen at random.
"""

import torch

import sinkdiv


def main(count: int = 1000, few: int = 20, steps: int = 100) -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    # Half of the cloud lies around the first centre.
    cloud = centres[torch.tensor([0, 0, 1, 2]).repeat(count // 4)] + 0.4 * torch.randn(count // 4 * 4, 2)
    criterion = sinkdiv.SinkhornDivergence(blur=0.2)

    points = cloud[torch.randperm(len(cloud))[:few]].clone().requires_grad_()
    logits = torch.zeros(few, requires_grad=True)
    optimiser = torch.optim.Adam([points, logits], lr=5e-2)
    for step in range(steps + 1):
        loss = criterion(points, cloud, logits.softmax(0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % (steps // 4) == 0:
            print(f"step {step:3d}: divergence of {few} points from {len(cloud)}: {loss.item():.4f}")

    near = torch.cdist(points.detach(), centres).argmin(1)
    masses = [logits.softmax(0)[near == index].sum().item() for index in range(len(centres))]
    print(f"mass around the three centres: {[round(mass, 2) for mass in masses]} (true: 0.5, 0.25, 0.25)")


if __name__ == "__main__":
    main()
