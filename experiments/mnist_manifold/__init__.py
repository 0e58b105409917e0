"""The square of latents of a generator of digits."""
