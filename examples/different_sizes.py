"""Many pairs of clouds of different sizes in one call, as lists.

One sees one value for each pair, the same as in a loop, and one backward pass for all of them. Every pair stops when
it has converged itself, and each may have a blur of its own.
"""

import time

import torch

import sinkdiv


def main(pairs: int = 40) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(20, 200, (pairs, 2), generator=generator).tolist()
    xs = [torch.randn(n, 3, generator=generator).requires_grad_() for n, _ in sizes]
    ys = [torch.randn(m, 3, generator=generator) + 1 for _, m in sizes]

    sinkdiv.sinkhorn_divergence(xs, ys, blur=0.5)  # not timed: the first call takes longer
    start = time.perf_counter()
    values = sinkdiv.sinkhorn_divergence(xs, ys, blur=0.5)
    together = time.perf_counter() - start
    start = time.perf_counter()
    loop = torch.stack([sinkdiv.sinkhorn_divergence(x, y, blur=0.5) for x, y in zip(xs, ys, strict=True)])
    alone = time.perf_counter() - start

    values.mean().backward()
    print(f"{pairs} pairs of {min(map(min, sizes))} to {max(map(max, sizes))} points")
    print(f"first values: {[round(value, 4) for value in values[:4].tolist()]}")
    print(f"largest difference from a loop: {(values - loop).abs().max().item():.1e}")
    print(f"{1000 * together:.0f} ms together, {1000 * alone:.0f} ms one by one")
    print(f"gradients of the first pair have the shape {tuple(xs[0].grad.shape)}")

    scales = torch.stack([y.detach().std() for y in ys])
    values = sinkdiv.sinkhorn_divergence(xs, ys, blur=scales / 4)
    print(f"with a blur for each pair: {[round(value, 4) for value in values[:4].tolist()]}")


if __name__ == "__main__":
    main()
