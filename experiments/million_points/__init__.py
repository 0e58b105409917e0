"""The divergence of two clouds of a million points."""
