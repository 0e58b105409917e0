"""Toy generators that learn from implicit and unrolled derivatives."""
