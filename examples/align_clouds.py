"""Move one cloud onto another by following the gradient of the Sinkhorn divergence.

One sees the divergence fall to zero and the width of the cloud become that of the target. The transport cost, which is
not debiased, ends on a shrunk copy of the target.
"""

import torch

import sinkdiv


def flow(loss: torch.nn.Module, start: torch.Tensor, target: torch.Tensor, steps: int) -> torch.Tensor:
    """Where the points (n, 2) are after so many steps along the gradient of the loss."""
    points = start.clone().requires_grad_()
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(loss(points, target), points)
        with torch.no_grad():
            # Each point weighs 1/n. A step of n/2 moves it to the mean of where its mass goes.
            points -= len(points) / 2 * gradient
    return points.detach()


def width(points: torch.Tensor) -> str:
    """The standard deviation of each coordinate."""
    return " × ".join(f"{deviation:.3f}" for deviation in points.std(0))


def main(count: int = 300, steps: int = 30) -> None:
    torch.manual_seed(0)
    start = 0.2 * torch.randn(count, 2)
    target = torch.rand(count, 2) * torch.tensor([2.0, 1.0]) + 1
    # Points move a little from step to step, so each solve starts where the last one ended.
    solver = sinkdiv.Auto(warm_start=True)
    losses = {
        "Sinkhorn divergence": sinkdiv.SinkhornDivergence(blur=0.3, solver=solver),
        "transport cost": sinkdiv.TransportCost(blur=0.3, solver=solver),
    }
    before = sinkdiv.sinkhorn_divergence(start, target, blur=0.3)
    print(f"at first: width {width(start)}, divergence {before:.4f}")
    for name, loss in losses.items():
        moved = flow(loss, start, target, steps)
        lower, upper = sinkdiv.solve_divergence(moved, target, blur=0.3).bounds
        print(f"along the {name}: width {width(moved)}, divergence in [{lower:.4f}, {upper:.4f}]")
    print(f"the target: width {width(target)}")


if __name__ == "__main__":
    main()
