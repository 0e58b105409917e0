"""The table of the Sinkhorn autoencoder's paper."""
