"""The share of a training step that its loss takes."""
