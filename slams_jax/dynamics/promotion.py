"""Promotion rules for models of others, which are written for the standard ones of JAX."""

import contextlib

import jax


@contextlib.contextmanager
def relaxed_promotion():
    """JAX's default promotion rules, if the caller has stricter ones."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
