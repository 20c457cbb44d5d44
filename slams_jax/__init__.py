"""Score-based latent data assimilation in JAX."""

__version__ = "0.1.0"
