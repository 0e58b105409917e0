"""Generative models trained with Sinkhorn divergences, and their baselines. Needs the extra `sinkdiv[train]`.

Models, by what they are made of:

- `priors`       distributions over the latent space, by name or brought along
- `networks`     encoders and decoders; `dcgan` for generators and critics
- `matching`     latent losses on samples (SAE, WAE, SWAE, …); `posteriors`: stochastic encoders (VAE, HVAE)
- `methods`      the table of what makes codes follow a prior
- `autoencoder`  the Sinkhorn autoencoder (P19) and its baselines
- `generator`    the Sinkhorn generator (G18), with its `generator_loss` and `critic`

Runs, in the order in which they happen:

- `config`       settings of every model; `models`: from settings to a model
- `data`         images by name, from a folder, a zip or an array
- `opening`      how a run begins and goes on
- `training`     from the first step to the report; `processes`, `distributed`, `precision`, `transfer`, `callbacks`,
                 `watch`
- `metrics`      how good a model is, from `scores` in `features`
- `finishing`    what a run leaves: `showing`, `figures`, `report`, `score_table`
"""
