"""Scores of generated images as functions of tensors that return plain numbers; each says its formula and its source.

- `frechet`     Fréchet distance between Gaussians fitted to features ("FID")
- `kernel`      squared maximum mean discrepancy of features, unbiased ("KID")
- `confidence`  how sure and how varied a classifier's answers are ("inception score")
"""
