"""An explicit cost matrix: how near is its entropic plan to the best plan, and what if some pairs are forbidden?

Stores must serve customers. One sees an interval that certainly contains the cost of the best plan without
regularisation, and how it shrinks with ε. Then some roads are closed, which is a cost of +∞: no mass goes there.
"""

import torch

import sinkdiv


def main(stores: int = 30, customers: int = 40) -> None:
    generator = torch.Generator().manual_seed(0)
    where = torch.rand(stores, 2, generator=generator, dtype=torch.float64)
    whither = torch.rand(customers, 2, generator=generator, dtype=torch.float64)
    C = torch.cdist(where, whither)
    supply = torch.full((stores,), 1 / stores, dtype=torch.float64)
    demand = torch.softmax(torch.randn(customers, generator=generator, dtype=torch.float64), 0)

    for eps in (0.1, 0.01, 0.001):
        t = sinkdiv.solve_matrix(C, supply, demand, eps=eps, tol=1e-6, solver=sinkdiv.Newton())
        lower, upper = t.unregularised_bounds
        print(f"eps {eps:5}: cost of the plan {t.sharp:.5f}, cost of the best plan in [{lower:.5f}, {upper:.5f}]")
        print(f"           {t.passes} passes, {t.status}")

    closed = torch.rand(C.shape, generator=generator) < 0.2
    detour = sinkdiv.solve_matrix(C.masked_fill(closed, torch.inf), supply, demand, eps=0.001)
    print(f"mass on the roads that close: {t.plan()[closed].sum():.3f} before, {detour.plan()[closed].sum():.3f} after")
    print(f"cost of the plan {t.sharp:.5f} before, {detour.sharp:.5f} after")


if __name__ == "__main__":
    main()
