"""The convnets in whose features pictures are scored."""
