"""Learn where points go from two samples, and send points that were not among them.

The potential f of a solved problem can be evaluated anywhere. For the squared cost z − ½∇f(z) is where a point z is
sent. Between two Gaussians the exact map is known; one sees how far the estimate is from it, on points of the sample
(where `barycentric_map` gives the same) and on new ones.
"""

import torch

import sinkdiv


def send(transport: sinkdiv.Transport, points: torch.Tensor) -> torch.Tensor:
    """Where points (k, d) are sent, (k, d)."""
    points = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(transport.potentials_at(points).sum(), points)
    return points.detach() - gradient / 2


def main(count: int = 1500) -> None:
    torch.manual_seed(0)
    scale, shift = torch.tensor([2.0, 0.5]), torch.tensor([3.0, 0.0])
    x, y = torch.randn(count, 2), scale * torch.randn(count, 2) + shift
    t = sinkdiv.solve(x, y, blur=0.3)
    print(t)

    difference = (send(t, x) - t.barycentric_map()).abs().max()
    print(f"at the points of the sample: both ways agree to {difference:.1e}")
    for name, points in {"points of the sample": x, "new points": torch.randn(count, 2)}.items():
        exact = scale * points + shift
        error, travel = (difference.norm(dim=1).mean() for difference in (send(t, points) - exact, points - exact))
        print(f"{name}: off by {error:.3f} on average, on a way of {travel:.2f}")


if __name__ == "__main__":
    main()
