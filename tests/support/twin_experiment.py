"""One twin experiment for all filters, in the set-ups of which DAPPER publishes scores."""

import jax
import jax.numpy as jnp
import numpy as np


def median_rmse(
    model,
    start,
    spread,
    error,
    members,
    analyse,
    *,
    begin=lambda members: members,
    mean=lambda members: jnp.mean(members, axis=0),
):
    """Of the mean of the members over 1,000 cycles: the median of 8 runs, a few of which diverge.

    `analyse` takes the members at one time, and the observations of the next, to the latter;
    `begin` makes of the first states what it takes, and `mean` is that of what it gives.
    """
    start = jnp.asarray(start, jnp.float32)

    def run(key):
        key_truth, key_start, key_error, key_filter = jax.random.split(key, 4)
        truth = start + spread * jax.random.normal(key_truth, start.shape)
        first = start[None] + spread * jax.random.normal(key_start, (members, *start.shape))

        def advance(carry, keys):
            truth, ensemble = carry
            truth = model(truth)
            observed = truth + error * jax.random.normal(keys[0], truth.shape)
            analysis = analyse(ensemble, observed, keys[1])
            misfit = mean(analysis) - truth
            return (truth, analysis), jnp.sqrt(jnp.mean(misfit**2))

        keys = [jax.random.split(k, 1300) for k in (key_error, key_filter)]
        return jnp.mean(jax.lax.scan(advance, (truth, begin(first)), keys)[1][300:])

    return np.median(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 8)))
