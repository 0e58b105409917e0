"""What the blur does: from exact transport to a kernel distance, and what it costs.

One sees the divergence of two samples for a few blurs, beside its two limits, with the passes that each takes. A small
blur is near exact transport and takes many passes. A large one compares the means only, for the squared cost.
"""

import torch

import sinkdiv


def main(count: int = 400) -> None:
    torch.manual_seed(0)
    x = torch.rand(count, 2)
    y = torch.rand(count, 2) * torch.tensor([1.0, 0.5]) + torch.tensor([0.2, 0.0])
    small = sinkdiv.solve(x, y, blur=0.01)
    lower, upper = small.unregularised_bounds
    print(f"exact transport is in     [{lower:.4f}, {upper:.4f}]")
    for blur in (0.01, 0.03, 0.1, 0.3, 1.0, 10.0):
        d = sinkdiv.solve_divergence(x, y, blur=blur)
        print(f"blur {blur:5}: divergence  {d.value:.4f}, transport cost {d.ab.value:7.4f}, {d.ab.passes} passes")
    print(f"squared distance of means {(x.mean(0) - y.mean(0)).square().sum():.4f}")


if __name__ == "__main__":
    main()
