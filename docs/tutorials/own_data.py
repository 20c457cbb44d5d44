# %% [markdown]
# # Your own data
#
# This tutorial goes from files in an arbitrary layout to an analysis: read fields and stations,
# train a score network on the fields, and draw an ensemble from a background and the stations.
# Everything is small (a region of 10 x 14 points, two levels, three years of daily data) and runs
# in half a minute. Replace the files that the first cells write with your own.

# %%
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from scipy.ndimage import gaussian_filter

from slams_jax import (
    Observations,
    OptimiserConfig,
    StageConfig,
    assimilate,
    load_model,
    networks_for,
    open_dataset,
    read_stations,
    save_model,
    train_model,
    training_set,
)
from slams_jax.data import stack_channels
from slams_jax.verify import metrics

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Example files
#
# We write a smooth, slowly varying temperature as some model might: with its own names, in degrees
# Celsius, pressure in Pa from the ground upwards, latitudes from north to south, longitudes from 0
# to 360, and an unusual order of dimensions. The forecast, which will be the *background* of the
# analysis, has errors that are smooth as well.

# %%
DAYS, NORTH, EAST = 1100, np.arange(60.0, 37.0, -2.5), np.arange(340.0, 373.0, 2.5) % 360
time = np.datetime64("2019-01-01") + np.arange(DAYS)
rng = np.random.default_rng(0)


def smooth(size, memory):
    """Noise of unit variance (time, level, lat, lon), smooth in space, correlated in time."""
    white = rng.standard_normal((DAYS, 2, NORTH.size, EAST.size))
    white[:, 1] = 0.6 * white[:, 0] + 0.8 * white[:, 1]
    noise = gaussian_filter(white, (memory, 0, size, size), mode="reflect")
    return noise / noise.std()


season = np.cos(2 * np.pi * (np.arange(DAYS) - 200) / 365.25)
mean = np.array([14.0, -20.0])[:, None, None] - 0.6 * (NORTH - 48.0)[:, None]
truth = mean + 8.0 * season[:, None, None, None] + 5.0 * smooth(3.0, 1.5)
forecast = truth + 0.5 + 1.5 * smooth(3.0, 0.7) + 0.3 * smooth(0.0, 0.0)


def write(name, celsius):
    dataset = xr.Dataset(
        {"TEMP": (("day", "plev", "nav_lat", "nav_lon"), celsius, {"units": "degC"})},
        {
            "day": ("day", time, {"standard_name": "time"}),
            "plev": ("plev", [100000.0, 50000.0], {"units": "Pa"}),
            "nav_lat": ("nav_lat", NORTH, {"units": "degrees_north"}),
            "nav_lon": ("nav_lon", EAST, {"units": "degrees_east"}),
        },
    )
    dataset.transpose("nav_lon", "nav_lat", "plev", "day").to_netcdf(folder / name)


write("analyses.nc", truth)
write("forecasts.nc", forecast)

# %% [markdown]
# Stations are a table with one value per row: time, position, altitude in metres, variable and
# value. Here there are twenty, at the height of the 1000 hPa level, with errors of 0.5 K; one day
# in ten is missing.

# %%
rows, columns = rng.integers(0, NORTH.size, 20), rng.integers(0, EAST.size, 20)
table = pd.concat(
    pd.DataFrame(
        {
            "time": time,
            "station": f"S{k:02d}",
            "latitude": NORTH[i],
            "longitude": EAST[j],
            "altitude": 110.9,
            "variable": "temperature",
            "value": truth[:, 0, i, j] + 0.5 * rng.standard_normal(DAYS),
        }
    ).sample(frac=0.9, random_state=k)
    for k, (i, j) in enumerate(zip(rows, columns, strict=True))
)
table.sort_values("time").to_csv(folder / "stations.csv", index=False)
table.head(3)

# %% [markdown]
# ## Read the files
#
# `open_dataset` brings any CF file into one layout: dimensions (time, level, latitude, longitude),
# all ascending, in hPa, K and float32. Pass it the names that it does not recognise. It reads
# lazily, so a file may be larger than memory.

# %%
PAST, LATER = ("2019-01-01", "2021-11-30"), ("2021-12-08", "2021-12-17")
names = {"temperature": "TEMP"}
past = open_dataset(folder / "analyses.nc", variables=names, period=PAST)
past

# %% [markdown]
# ## Make a training set
#
# `training_set` puts the fields on one time axis in a memory-mapped cache, splits them into periods
# and fits a climatology with the annual cycle to the training period. The background is there to
# estimate its error covariance; modalities such as satellite fields or stations would be further
# entries.

# %%
earlier = open_dataset(folder / "forecasts.nc", variables=names, period=PAST)
data = training_set(
    {"state": past, "background": earlier},
    {"train": ("2019-01-01", "2021-06-30"), "validation": ("2021-07-01", "2021-11-30")},
    folder / "cache",
    harmonics=1,
)
states = data.standardised("state", data.frames("train"))
print(states.shape, states.std().round(2))

# %% [markdown]
# ## Train
#
# Fields this small need no autoencoder: the diffusion runs in state space. `networks_for` takes the
# channels from the data, and the padding too: the edges of a region are neither poles nor periodic.
# If training is interrupted, the same call resumes it.

# %%
networks = networks_for(data, score={"window": 3, "widths": (24,), "blocks": 1})
optimiser = OptimiserConfig(steps=600, learning_rate=2e-3, warmup_steps=20)
model = train_model(
    folder / "run", data, networks, score_training=StageConfig(optimiser, batch_size=16)
)

# %% [markdown]
# ## Save and load
#
# The model is the network with everything that belongs to it: grid, channels, climatology, error
# covariances. `save_model` writes it as one file, with a model card beside it. `load_model` reads
# the file, here or anywhere else, from a path or a URL.

# %%
save_model(model, folder / "mine.safetensors", description="Temperature of a small region.")
model = load_model(folder / "mine.safetensors")
grid, channels = model.grid, model.channels
print(grid.shape, [str(c) for c in channels])

# %% [markdown]
# ## Assimilate
#
# We analyse ten days shortly after the training period. The last four stations are withheld, to
# check the analysis where nothing was observed.

# %%
background = open_dataset(folder / "forecasts.nc", variables=names, period=LATER)
stations = read_stations(folder / "stations.csv", units="degC", period=LATER)
used, withheld = stations.isel(station=slice(16)), stations.isel(station=slice(16, None))

# %%
analysis = assimilate(
    model,
    background,
    [Observations("stations", used, "points", error=0.5)],
    members=16,
    key=jax.random.key(0),
)

# %% [markdown]
# The library warns where the fit or spread of the analysis is inconsistent with the prescribed
# errors; `analysis.attrs["diagnostics"]` has the numbers for every stream. The analysis is a
# Dataset like those that were read, with a leading member dimension:

# %%
analysis.drop_attrs()

# %% [markdown]
# ## What did the observations add?

# %%
reference = open_dataset(folder / "analyses.nc", variables=names, period=LATER)
true = stack_channels(reference, channels)
members = np.stack([stack_channels(analysis.isel(member=i), channels) for i in range(16)])
weights = grid.area_weights()
rmse = {
    name: metrics.rmse(field, true, weights)
    for name, field in (
        ("background", stack_channels(background, channels)),
        ("analysis", members.mean(axis=0)),
    )
}
spread = metrics.spread(members, weights=weights)
for k, channel in enumerate(channels):
    errors = ", ".join(f"{name} {values[k]:.2f} K" for name, values in rmse.items())
    print(f"{channel}: RMSE of {errors}; spread {spread[k]:.2f} K")

# %%
at = {
    name: xr.DataArray(withheld[name].values, dims="station") for name in ("latitude", "longitude")
}
for name, field in (("background", background), ("analysis", analysis.mean("member"))):
    near = field.temperature.sel(level=1000).sel(at, method="nearest")
    misfit = near.values - withheld.temperature.values
    print(f"{name}: RMS misfit at the withheld stations {np.sqrt(np.nanmean(misfit**2)):.2f} K")

# %% tags=["check"]
assert rmse["analysis"][0] < 0.92 * rmse["background"][0], rmse
assert rmse["analysis"][1] < 0.6 * rmse["background"][1], rmse
assert 0.5 < np.mean(spread / rmse["analysis"]) < 1.5

# %% [markdown]
# 500 hPa is not observed at all: its improvement comes through the background errors, which are
# correlated between levels, and through the prior.

# %%
day = analysis.time.values[5]
fields = {
    "background - truth": background.temperature - reference.temperature,
    "analysis - truth": analysis.temperature.mean("member") - reference.temperature,
    "spread": analysis.temperature.std("member"),
}
figure, axes = plt.subplots(1, 3, figsize=(10, 3), sharey=True, layout="constrained")
for axis, (name, field) in zip(axes, fields.items(), strict=True):
    low, cmap = (0.0, "viridis") if name == "spread" else (-4.0, "RdBu_r")
    field.sel(time=day, level=1000).plot(
        ax=axis,
        vmin=low,
        vmax=2.0 if name == "spread" else 4.0,
        cmap=cmap,
        cbar_kwargs={"label": "K", "orientation": "horizontal"},
    )
    axis.plot(used.longitude, used.latitude, "k^", markersize=4)
    axis.set(title=name, xlabel="", ylabel="")
plt.show()

# %% [markdown]
# ## The same from the command line
#
# For data that take hours to train on, use the commands: they cache the fields, write checkpoints,
# resume, evaluate, and save a model that `load_model` reads. Copy `configs/prepare_era5.py` to
# `mine.py`, set `data.root` (the folder), `data.state`, `data.background`, `data.variables`,
# `data.levels`, `data.grid`, `data.period`, `data.hours`, `data.modalities`, `data.periods`,
# `assimilation.latent_inputs` and `assimilation.streams` in it, and run
#
# ```sh
# python -m experiments.train      --config=mine.py
# python -m experiments.assimilate --config=mine.py --output=analysis.nc
# python -m experiments.evaluate   --config=mine.py --analysis=analysis.nc
# ```
