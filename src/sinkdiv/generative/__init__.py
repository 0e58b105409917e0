"""Generative models trained with Sinkhorn divergences, and their baselines. Needs the extra `sinkdiv[train]`.

Begin with `training`: a run on one page, from the settings to the loss step and the report.

What models are made of, and where a new part is added, with one line in a table:

- `data`           images; a data set: a function and a line in `DATASETS` of `data.named`
- `priors`         distributions over the latent space; a prior: a class and a line in `PRIORS` of `priors.parsing`
- `networks`       an architecture: a file and a line in `NETWORKS`
- `latent_losses`  how far codes are from the prior (SAE, WAE, SWAE, …); `posteriors`: stochastic encoders (VAE, HVAE)
- `methods`        what makes codes follow a prior; a method: one of these two and a line in `METHODS`
- `generator_loss` the divergence between samples and data, and `critic`: the costs that are learned for it
- `models`         the autoencoder (P19) and the generator (G18), with their `config`; a model: a file in each, and a
                   line in `CONFIGS` and in `MODELS`
- `scores`         how good a model is, in `features`; a score: a function and a line in `SCORES`

What runs are made of:

- `settings`       how a setting is declared, once: the command line, the defaults, the checks and the file follow
- `config`         the settings of each model, and the file they are kept in
- `runs`           a run's folder, and reading it back
- `training`       from settings to results; `trainer`, `callbacks` and `failures` are what surrounds its steps
- `launcher`       the processes that share batches; `worker` is what they run, `distributed` how a loss sees them all
- `results`        what a run leaves; `report` has its pictures and its page
"""
