"""A geometry that the package does not know: a convolution on a ring, written with the protocol's methods alone."""

import torch

from sinkdiv.geometry import Geometry


class RingGeometry(Geometry):
    """Squared arc lengths between n places on circles of the given circumferences (B,). The costs have no tensors.

    The kernel is circulant, so that a product with it is a convolution: no matrix of n × n is ever formed.
    """

    symmetric = True

    def __init__(self, circumferences, n, *, dtype=torch.float64):
        self.circumferences, self.n = circumferences.to(dtype), n
        self.shape, self.dtype, self.device = (len(circumferences), n, n), dtype, circumferences.device
        steps = torch.arange(n, dtype=dtype)
        self.arcs = (torch.minimum(steps, n - steps) * self.circumferences[:, None] / n).square()

    def spread(self):
        return self.arcs.amax(1)

    def softmin(self, h, eps, side, near=None):
        shifted = torch.stack([h.roll(-k, 1) - self.arcs[:, k, None] / eps for k in range(self.n)])
        return -eps * shifted.logsumexp(0)

    def ctransform(self, g, side):
        return torch.stack([self.arcs[:, k, None] - g.roll(-k, 1) for k in range(self.n)]).amin(0)

    def plan_product(self, u, h, eps, v, side):
        return self._convolved(u, h, eps, v, side, torch.ones_like(self.arcs))

    def cost_product(self, u, h, eps, v, side):
        return self._convolved(u, h, eps, v, side, self.arcs)

    def exact(self):
        return RingGeometry(self.circumferences, self.n, dtype=torch.float64)

    def _convolved(self, u, h, eps, v, side, factors):
        own, other = (u, h) if side == 0 else (h, u)
        sums = torch.zeros_like(v)
        for k in range(self.n):
            entries = factors[:, k, None] * torch.exp(own + other.roll(-k, 1) - self.arcs[:, k, None] / eps)
            sums = sums + entries[:, :, None] * v.roll(-k, 1)
        return sums

    def matrix(self):
        """C (B, n, n), for comparisons."""
        i = torch.arange(self.n)
        return self.arcs[:, (i[:, None] - i[None, :]) % self.n]
