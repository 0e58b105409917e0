"""The speed of a Sinkhorn divergence beside that of other libraries."""
