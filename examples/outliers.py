"""Unbalanced transport: a few outliers do not spoil a match.

A cloud is matched with a shifted copy of itself, to which some far points were added. With exact marginals every
outlier must be served, and drags its part of the cloud along. With a `reach` mass that would have to go too far stays
where it is: one sees the shift found again, and hardly any mass on the outliers.
"""

import torch

import sinkdiv


def main(count: int = 200, outliers: int = 20) -> None:
    torch.manual_seed(0)
    shift = torch.tensor([0.3, 0.0])
    x = torch.rand(count, 2)
    far = torch.tensor([0.0, 10.0]) + 0.1 * torch.randn(outliers, 2)
    y = torch.cat([x + shift, far])
    print(f"true shift {shift.tolist()}, {outliers} of {len(y)} points are outliers")
    for name, reach in {"exact marginals": None, "reach 2": 2.0}.items():
        t = sinkdiv.solve(x, y, blur=0.05, reach=reach)
        moved = (t.barycentric_map() - x).mean(0)
        mass = t.marginals()[1]
        print(f"{name}: mean shift ({moved[0]:.3f}, {moved[1]:.3f}), mass on outliers {mass[count:].sum():.4f}")

    # The pull of the far points on a loss, as the size of its gradient.
    for name, reach in {"exact marginals": None, "reach 2": 2.0}.items():
        points = y.clone().requires_grad_()
        sinkdiv.sinkhorn_divergence(points, x, blur=0.05, reach=reach).backward()
        print(f"{name}: gradient at an outlier {points.grad[count:].norm(dim=1).mean():.1e}")


if __name__ == "__main__":
    main()
