"""Generators of colour images under a learned cost."""
