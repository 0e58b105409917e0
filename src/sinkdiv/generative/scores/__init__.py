"""Scores of generated images as functions of tensors that return plain numbers; each says its formula and its source.

- `frechet`      Fréchet distance between Gaussians fitted to features ("FID")
- `kernel`       squared maximum mean discrepancies, unbiased: of features ("KID") and of codes
- `confidence`   how sure and how varied a classifier's answers are ("inception score")
- `support`      precision, recall, density, coverage
- `memorisation` whether samples are copies of training images
- `transport`    exact Wasserstein distance, Sinkhorn divergence with its certified interval
"""
