# %% [markdown]
# # A year of analyses
#
# Weather services analyse the atmosphere every six hours, each time from a forecast of the analysis
# before. This tutorial cycles Lorenz-96, a ring of 40 chaotic variables, through a year of such
# analyses with a local ensemble transform Kalman filter (LETKF): 1,460 cycles of 0.05 time units,
# about six hours each. Then it shows how a run says that its filter diverges, how one resumes, and
# a filter with a trained prior.

# %%
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from slams_jax.assimilation import score_filter
from slams_jax.baselines import gaspari_cohn, letkf
from slams_jax.cycling import Observed, observation_series, run_cycle
from slams_jax.dynamics import Lorenz96, lorenz96
from slams_jax.errors import RunError
from slams_jax.models import train_state_prior
from slams_jax.training import OptimiserConfig

CYCLES, INTERVAL, VARIABLES, MEMBERS = 1460, 0.05, 40, 10
ERROR = jnp.ones(VARIABLES)  # of the observations, standard deviations
system = Lorenz96()
folder = Path(tempfile.mkdtemp())  # a real run keeps its directory

# %% [markdown]
# ## The truth and its observations
#
# All variables are observed, with an error of 1. Observations usually come from files, so we write
# one; `observation_series` reads it as the run needs it.

# %%
key_truth, key_error, key_start, key_cycle = jax.random.split(jax.random.key(0), 4)
first = system.forcing + jax.random.normal(key_truth, (VARIABLES,))
run = lorenz96.trajectory(system, first, dt=INTERVAL, length=1000 + CYCLES)[999:]
begin, truth = run[0], np.asarray(run[1:])
values = truth + np.asarray(jax.random.normal(key_error, truth.shape))
times = INTERVAL * np.arange(1, CYCLES + 1)
dataset = xr.Dataset({"x": (("time", "variable"), values)}, {"time": times})
dataset.to_netcdf(folder / "observations.nc", engine="h5netcdf")
observations = xr.open_dataset(folder / "observations.nc", engine="h5netcdf").x

# %% [markdown]
# ## The filter
#
# A forecast is a function of a state and a key, here of all members at once. The LETKF analyses
# each variable from the observations near it; `nearness` is the factor of their precision. The
# ensemble starts from the truth with an error of 1.

# %%
apart = np.abs(np.subtract.outer(np.arange(VARIABLES), np.arange(VARIABLES)))
nearness = jnp.asarray(gaspari_cohn(np.minimum(apart, VARIABLES - apart), 14.0), jnp.float32)
operator = lambda x: x
forecast = jax.jit(lambda members, key: lorenz96.step(system, members, INTERVAL))
start = begin + jax.random.normal(key_start, (MEMBERS, VARIABLES))


def rmse(time, done):
    misfit = done.analysis.mean(axis=0) - truth[round(time / INTERVAL) - 1]
    return {"rmse": float(jnp.sqrt(jnp.mean(misfit**2)))}


def cycle(name, analyse, inflation, observations):
    return run_cycle(
        forecast,
        jax.jit(analyse),
        start,
        observation_series(observations),
        key_cycle,
        directory=folder / name,
        observed=Observed(operator, ERROR),
        begin=0.0,
        interval=INTERVAL,
        about={"inflation": inflation},  # a directory of another inflation is refused
        verify=rmse,
    )


def local(name, inflation, observations):
    analyse = letkf(operator, ERROR, nearness, inflation=inflation)
    return cycle(name, analyse, inflation, observations)


def records(name):
    return [json.loads(line) for line in (folder / name / "cycle.jsonl").open()]


# %% [markdown]
# ## A year
#
# The spread of each analysis is multiplied by 1.05, since small ensembles lose spread by sampling
# errors. The first call has half a year of observations. The second has all of them, and continues
# where the first ended; a killed run resumes in the same way, from its last checkpoint.

# %%
local("inflated", 1.05, observations[:730])
print(f"{len(records('inflated'))} cycles are done")
local("inflated", 1.05, observations)
year = records("inflated")
settled = year[200:]
mean = lambda name: np.mean([record[name] for record in settled])
print(f"RMSE {mean('rmse'):.2f}, spread {mean('analysis_spread'):.2f}")
print(f"chi-squared {mean('chi_squared'):.2f}")

# %% tags=["check"]
assert len(year) == CYCLES
assert mean("rmse") < 0.25
assert 0.9 < mean("analysis_spread") / mean("rmse") < 1.4
assert abs(mean("chi_squared") - 1.0) < 0.1

# %% [markdown]
# The error of the mean is about a fifth of that of an observation, and chi-squared is 1:
# innovations are as large as spread and observation errors predict.
#
# ## Without inflation
#
# The same filter without inflation grows too sure of itself, and one day loses the truth. The run
# says so, in one line, and stops; everything until then is on disk.

# %%
try:
    local("uninflated", 1.0, observations)
except RunError as error:
    print(str(error).replace(str(folder), "..."))

# %% tags=["check"]
lost = records("uninflated")
assert len(lost) < CYCLES
assert np.mean([record["rmse"] for record in lost[-5:]]) > 2.0

# %%
figure, axes = plt.subplots(2, 2, figsize=(10, 5), sharex=True, sharey="row", layout="constrained")
for column, name in zip(axes.T, ("inflated", "uninflated"), strict=True):
    run = records(name)
    time = [record["time"] for record in run]
    column[0].set_title(name)
    column[0].plot(time, [r["rmse"] for r in run], label="RMSE of the mean", linewidth=0.8)
    column[0].plot(time, [r["analysis_spread"] for r in run], label="spread", linewidth=0.8)
    column[1].semilogy(time, [r["chi_squared"] for r in run], color="tab:green", linewidth=0.8)
    column[1].axhline(1.0, color="black", linewidth=0.6)
    column[1].set_xlabel("time")
axes[0, 0].legend(frameon=False)
axes[1, 0].set_ylabel("chi-squared")
plt.show()

# %% [markdown]
# ## The analyses
#
# Mean and spread of each analysis are in a Zarr store, which grows with the run.

# %%
analyses = xr.open_zarr(folder / "inflated" / "analyses.zarr", consolidated=False, chunks=None)
analyses.sizes

# %% tags=["check"]
assert analyses.sizes["time"] == CYCLES
error = np.sqrt(np.mean((analyses["mean"].values[200:] - truth[200:]) ** 2))
assert abs(error / mean("rmse") - 1.0) < 0.1

# %% [markdown]
# ## A month with a trained prior
#
# `score_filter` adds to background and observations what a network has learned of the climate: here
# of 16,000 states from runs that start elsewhere. The network is trained to correct the Gaussian
# approximation of the climate. An analysis takes 24 evaluations of the network for each
# member.

# %%
elsewhere = system.forcing + jax.random.normal(jax.random.key(1), (32, VARIABLES))
states = lorenz96.trajectory(system, elsewhere, dt=INTERVAL, length=1000)[500:]
states = np.asarray(states)
prior = train_state_prior(
    folder / "prior",
    states.reshape(-1, VARIABLES),
    optimiser=OptimiserConfig(steps=1000, learning_rate=2e-3, warmup_steps=100),
)
analyse = score_filter(prior, operator, ERROR, nearness=nearness, inflation=1.02)
cycle("score", analyse, 1.02, observations[:120])

# %% tags=["check"]
month_of = lambda name: np.mean([record["rmse"] for record in records(name)[40:120]])
assert len(records("score")) == 120
assert month_of("score") < 1.1 * month_of("inflated")

# %%
for name, label in (("inflated", "LETKF"), ("score", "score filter")):
    some = records(name)[:120]
    plt.plot([r["time"] for r in some], [r["rmse"] for r in some], label=label)
plt.xlabel("time")
plt.ylabel("RMSE of the mean")
plt.legend(frameon=False)
plt.show()

# %% [markdown]
# Forecasts are much sharper than the climate here, which therefore tells little that is new: the
# two filters are nearly level. [Filters compared](../benchmarks.md) has longer runs and other
# observations.
#
# From here:
#
# - your own model, states of several fields, dates: [Cycling](../guides/cycling.md);
# - other filters on the same system: `python -m experiments.cycle`.
