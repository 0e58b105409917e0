"""Generative models trained with Sinkhorn divergences. Needs the `train` extra: `pip install "sinkdiv[train]"`.

- `priors`       distributions over the latent space
- `networks`     encoders and decoders
- `autoencoder`  the Sinkhorn autoencoder (P19)
- `data`         images by name, from a folder, a zip or an array
- `metrics`      how good a trained model is, on images it has not seen
- `training`     a run from its configuration to its report
"""
