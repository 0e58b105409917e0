"""A decoder that draws a digit and places it."""
