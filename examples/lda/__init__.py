"""Latent Dirichlet allocation, trained by the DPSGD core."""
