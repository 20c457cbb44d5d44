# %% [markdown]
# # From a wrong posterior to the right one
#
# Guidance is exact where prior and observations are Gaussian. An observation that *bends*, such as
# a wind speed, which says nothing of the direction, breaks it. Here we watch guidance fail, read
# its certificate, and repair it with weighted paths and Metropolis moves. A wind vector has two
# components, so the exact posterior is a sum over a grid, and every step can be judged against it.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from slams_jax import CosineSchedule, RefinementConfig, SamplerConfig, preset
from slams_jax.diffusion import certify, guide, refine, resample, sample_ensemble, sample_with_info
from slams_jax.observe import Diagonal, Select, log_likelihood, make_stream, whitened_innovations
from slams_jax.reference_problems import Exact, GaussianDenoiser, Mixture, MixturePrior, score

# Two wind regimes, north-easterly and south-westerly; (u, v) in m/s.
climate = Mixture(
    weights=np.array([0.6, 0.4]),
    means=np.array([[-5.0, -2.0], [5.0, 3.0]]),
    covariances=np.array([[[9.0, 2.0], [2.0, 6.0]], [[8.0, -3.0], [-3.0, 9.0]]]),
)
mean, std = climate.mean(), np.sqrt(np.diag(climate.covariance()))
schedule = CosineSchedule()
prior = MixturePrior.of(climate.standardised(), schedule)  # its denoiser, in closed form
covariance = GaussianDenoiser.of(climate.standardised().covariance(), schedule)

# %% [markdown]
# ## The observation, and the answer
#
# A speed of 8 ± 1 m/s. Operators see states (time, latitude, longitude, channel) in physical units;
# the prior is standardised.

# %%
SPEED, ERROR = 8.0, 1.0
SHAPE = (1, 1, 1, 2)
center, scale = (jnp.asarray(a, jnp.float32) for a in (mean, std))


@jax.tree_util.register_static
class Speed:
    def __call__(self, state):
        return jnp.hypot(state[..., 0], state[..., 1])[..., None]


def to_state(x):
    return center + scale * x


def observed(operator, value):
    return make_stream(
        "wind", np.full((1, 1, 1, 1), value), operator, Diagonal(jnp.float32(ERROR**2))
    )


axis = np.linspace(-20.0, 20.0, 401)
nodes = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
logs = np.logaddexp.reduce(climate.log_densities(nodes), axis=1)
logs = logs - 0.5 * ((SPEED - np.hypot(*nodes.T)) / ERROR) ** 2
density = np.exp(logs - logs.max())
density /= density.sum()
angles = np.pi * np.arange(16) / 16
exact = Exact.weighted(nodes, density, np.stack([np.cos(angles), np.sin(angles)], axis=-1))

# %% [markdown]
# ## Guidance alone
#
# The rule `gaussian` needs no derivative of the network. `sample_with_info` returns, beside the
# draw, the log ratio of its path under prior and guidance; with the likelihood added it is the log
# weight of the path.


# %%
def weighted_paths(stream, denoiser, steps, count):
    """Guided draws and their log weights."""

    def innovations(x, extra):
        return whitened_innovations([stream], x, to_state, extra)

    guided = guide(denoiser, innovations, schedule, rule="gaussian", covariance=covariance.solve)

    def path(key):
        x, info = sample_with_info(key, guided, SHAPE, schedule, SamplerConfig(steps=steps))
        return x, info.log_ratio + log_likelihood([stream], x, to_state)

    return jax.jit(lambda key: sample_ensemble(key, path, count))(jax.random.key(0))


def told(log_weights):
    """The certificate of a single observation, in words."""
    c = certify(log_weights, observations=1)
    return f"{c.divergence:.2f} +- {c.divergence_error:.2f} nats, {c.effective:4.0%} effective"


DRAWS, STEPS = 4096, 64
speed = observed(Speed(), SPEED)
paths, log_weights = weighted_paths(speed, prior, STEPS, 2 * DRAWS)
alone = paths[:DRAWS]
print(told(log_weights))

# %% [markdown]
# Were guidance exact and steps infinitely short, all paths would have one weight. Here a few in a
# hundred have nearly all of it: some winds are likely given the observation, and guidance hardly
# ever goes there. The certificate knows this without knowing the exact posterior.
#
# ## Weighted paths
#
# All paths together, two for each draw, are resampled by their weights.

# %%
key_choice, key_moves = jax.random.split(jax.random.key(1))
resampled = paths[resample(key_choice, log_weights, DRAWS)]

# %% [markdown]
# ## And moves
#
# A Metropolis move noises a draw, denoises it without guidance, and lets the likelihood decide. It
# corrects what is left, and parts the copies of one path.

# %%
moves = RefinementConfig(moves=12)  # of 32 steps


@jax.jit
def moved_from(key, x):
    move = lambda key, x: refine(
        key, x, prior, lambda x: log_likelihood([speed], x, to_state), schedule, moves
    )
    refined = jax.vmap(move)(jax.random.split(key, len(x)), x)
    return refined.x_0, refined.accepted.mean()


moved, acceptance = moved_from(key_moves, resampled)
print(f"{100 * acceptance:.0f} % of the moves accepted")

# %%
rows = {
    "guidance alone": (alone, STEPS),
    "2 weighted paths": (resampled, 2 * STEPS),
    "paths and 12 moves": (moved, 2 * STEPS + moves.evaluations),
}
winds = {name: np.asarray(to_state(x), np.float64).reshape(-1, 2) for name, (x, _) in rows.items()}
distance = {name: score(exact, x).w1 for name, x in winds.items()}
print("                     evaluations   W1 to the exact posterior   share with u > 0")
for name, (_, evaluations) in rows.items():
    westerly = (winds[name][:, 0] > 0).mean()
    print(f"{name:20} {evaluations:11}   {distance[name]:25.3f}   {westerly:16.3f}")
floor, share = exact.w1_of_exact(DRAWS), density[nodes[:, 0] > 0].sum()
print(f"{'exact draws':20} {'':11}   {floor:25.3f}   {share:16.3f}")

# %% tags=["check"]
certificate = certify(log_weights, observations=1)
assert certificate.effective < 0.1
assert distance["guidance alone"] > 8 * floor
assert distance["2 weighted paths"] < 0.5 * distance["guidance alone"]
assert distance["paths and 12 moves"] < 2 * floor
assert acceptance > 0.2

# %%
bearing = lambda x: np.rad2deg(np.arctan2(x[..., 1], x[..., 0]))
bins = np.linspace(-180, 180, 61)
expected, _ = np.histogram(bearing(nodes), bins, weights=density)
figure, axes = plt.subplots(2, 3, figsize=(10, 5.6), layout="constrained", sharey="row")
for (upper, lower), (name, x) in zip(axes.T, winds.items(), strict=True):
    upper.contourf(axis, axis, density.reshape(len(axis), -1).T, levels=8, cmap="Oranges")
    upper.plot(*x[:1500].T, ".", color="tab:blue", markersize=1.5, alpha=0.5)
    upper.set(xlim=(-13, 13), ylim=(-13, 13), aspect="equal", xlabel="u (m/s)", title=name)
    lower.hist(bearing(x), bins, weights=np.full(len(x), 1 / len(x)), color="tab:blue", alpha=0.6)
    lower.stairs(expected, bins, color="tab:orange", linewidth=2, label="exact")
    lower.set(xlabel="direction of (u, v), degrees", xticks=[-180, -90, 0, 90, 180])
axes[0, 0].set_ylabel("v (m/s)")
axes[1, 0].set_ylabel("share of draws")
axes[1, 0].legend(frameon=False)
plt.show()

# %% [markdown]
# Guidance alone is drawn to the stronger regime. Weighted paths go nearer to the right shares, but
# repeat the few paths that have weight: the spikes. Moves spread the copies, and correct the rest.
#
# ## Reading the certificate
#
# The *divergence* is half the variance of the log weights: to second order, how far the guided
# paths are from those of the posterior, in nats (Kullback-Leibler). The draws are no further away
# than their paths. Steps of finite length are part of it, however good the guidance is, so compare
# it with a case where guidance is exact: here the component *u* alone, of a Gaussian with the same
# covariance.

# %%
linear = observed(Select((0,)), SPEED)
certificates = {}
for steps in (STEPS, 4 * STEPS):
    for name, stream, denoiser in (("speed", speed, prior), ("u, Gaussian", linear, covariance)):
        _, logs = weighted_paths(stream, denoiser, steps, DRAWS)
        certificates[steps, name] = certify(logs, observations=1)
        print(f"{steps:3} steps, {name:11}   {told(logs)}")

# %% tags=["check"]
few, many = (
    [certificates[steps, name] for name in ("speed", "u, Gaussian")] for steps in (STEPS, 4 * STEPS)
)
assert few[0].divergence < 2 * few[1].divergence
assert many[0].divergence > 2 * many[1].divergence
assert few[0].effective < 0.3 * few[1].effective

# %% [markdown]
# Where guidance is exact, four times as many steps leave a fifth of the divergence and nearly all
# paths count. The speed keeps half of it, most of which is guidance, not steps. With a
# single observation the effective share says even more, since it sees the rare, heavy paths, which
# hardly change a variance.
#
# ## Many observations
#
# Divergences add up. Imagine *n* such places so far apart that they are independent: a log weight
# is the sum of *n* of those above.

# %%
print("  n   divergence   per observation   effective paths of 128")
effective = {}
for n in (1, 4, 16, 64):
    together = np.asarray(log_weights, np.float64)[: 128 * n].reshape(128, n).sum(axis=1)
    joint = certify(together, observations=n)
    effective[n] = joint.effective * joint.members
    per = joint.divergence_per_observation
    print(f"{n:3}   {joint.divergence:10.1f}   {per:15.2f}   {effective[n]:22.1f}")

# %% tags=["check"]
assert effective[1] > 10
assert effective[64] < 3

# %% [markdown]
# The effective paths soon are one, whatever the ensemble: weights repair nothing with hundreds of
# observations, and of the moves, which propose the whole state at once, hardly any is accepted. The
# divergence *per observation* still means the same. There, it is a warning to read, not a cure.
#
# ## In an analysis
#
# `assimilate` takes the same options, and the preset `exact` has those of this page:

# %%
chosen = preset("exact")
print(chosen.sampler.steps, "steps,", chosen.paths, "paths,", chosen.refinement)

# %% [markdown]
# ```python
# analysis = assimilate(model, background, observations, members=64, key=key, **chosen._asdict())
# analysis.attrs["divergence_per_observation"], analysis.attrs["effective_paths"]
# analysis.attrs["acceptance"]  # of the moves; a warning says when it is below 5 %
# ```
#
# On the command line this is `python -m experiments.assimilate --preset=exact`, in a configuration
# `sampler.steps=64`, `assimilation.paths=2` and `refinement.moves=12`. Every analysis whose rule
# and solver give weights has the certificate, with or without these options.
# [Which method when](../guides/guidance.md#which-method-when) says where they are worth their cost,
# and [Method](../method.md#weights-of-paths) has the equations.
