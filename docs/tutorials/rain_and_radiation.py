# %% [markdown]
# # Rain and radiation
#
# Rain gauges and outgoing longwave radiation have no usable observation operator for temperature,
# yet they tell of it. This tutorial goes from the files of a climate model or reanalysis, with
# gauges and a satellite, to an analysis in which both enter through the encoder. Everything is
# small (16 x 32 points, three levels, four years of daily data) and takes two minutes. Replace the
# files that the first cells write with your own.

# %%
import logging
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from scipy.ndimage import gaussian_filter

from slams_jax import (
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
from slams_jax.data import InputTransform, stack_channels
from slams_jax.verify import metrics

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Example files
#
# A made-up atmosphere. Where air rises it is warmer aloft, clouds keep longwave radiation back, and
# it rains if it rises fast. The forecast, which will be the *background*, knows half of that
# ascent; and it has errors of other causes, of which rain and radiation say nothing.

# %%
DAYS, LEVELS = 1500, np.array([300.0, 500.0, 850.0])
LATITUDE, LONGITUDE = np.linspace(-84.375, 84.375, 16), np.arange(32) * 11.25
TIME = np.datetime64("2001-01-01T12", "ns") + np.arange(DAYS) * np.timedelta64(1, "D")
rng = np.random.default_rng(0)


def smooth(levels=1):
    """Noise of unit variance (time, level, lat, lon), correlated over some days and 2,000 km."""
    white = rng.standard_normal((DAYS, levels, 16, 32))
    noise = gaussian_filter(
        white, (1.0, 0.8, 1.0, 1.5), mode=("wrap", "nearest", "nearest", "wrap")
    )
    return noise / noise.std()


ascent = smooth()[:, 0]
released = np.exp(0.5 * ascent) - np.exp(0.125)  # latent heat: much in few places
heating = np.array([2.5, 3.0, 1.2])[:, None, None] * released[:, None]
season = 12.0 * np.cos(2 * np.pi * np.arange(DAYS) / 365.25)[:, None] * np.sin(np.deg2rad(LATITUDE))
zonal = np.array([228.0, 255.0, 280.0])[:, None] - 30.0 * np.sin(np.deg2rad(LATITUDE)) ** 2
temperature = (zonal - season[:, None])[..., None] + heating + 2.0 * smooth(3)
forecast = temperature - 0.5 * heating + 0.7 * smooth(3)
radiation = 240.0 + 20.0 * np.cos(np.deg2rad(LATITUDE))[:, None] - 15.0 * released
rain = 6.0 * np.maximum(ascent - 0.4, 0.0) ** 1.5  # mm/day

# %% [markdown]
# Fields are in the layout of CMIP: `ta` on pressures in Pa, `rlut` in W m⁻². The satellite misses a
# fifth of the globe each day, and measures with errors of 5 W m⁻².

# %%
orbit = (np.arange(32) + 3 * np.arange(DAYS)[:, None]) % 32 < 6
seen = np.where(orbit[:, None], np.nan, radiation + 5.0 * rng.standard_normal(radiation.shape))
axes = {
    "lat": ("lat", LATITUDE, {"units": "degrees_north", "standard_name": "latitude"}),
    "lon": ("lon", LONGITUDE, {"units": "degrees_east", "standard_name": "longitude"}),
    "time": ("time", TIME, {"standard_name": "time"}),
}
plev = {"plev": ("plev", 100.0 * LEVELS, {"units": "Pa", "standard_name": "air_pressure"})}
kelvin = {"units": "K", "standard_name": "air_temperature"}
flux = {"units": "W m-2", "standard_name": "toa_outgoing_longwave_flux"}
for name, field in (("analyses", temperature), ("forecasts", forecast)):
    dataset = xr.Dataset({"ta": (("time", "plev", "lat", "lon"), field, kelvin)}, axes | plev)
    dataset.to_netcdf(folder / f"{name}.nc")
xr.Dataset({"rlut": (("time", "lat", "lon"), seen, flux)}, axes).to_netcdf(folder / "satellite.nc")

# %% [markdown]
# Sixty gauges report the amount of a day in mm, wrong by a third and missing one day in ten. A
# model's own rain would do as well: `open_dataset` reads `pr`, in kg m⁻² s⁻¹ or mm a day, as
# `precipitation_flux`.

# %%
rows, columns = rng.integers(3, 13, 60), rng.integers(0, 32, 60)
caught = rain[:, rows, columns] * np.exp(0.33 * rng.standard_normal((DAYS, 60)))
reports = pd.DataFrame(
    {
        "time": np.repeat(TIME, 60),
        "station": np.tile([f"G{k:02d}" for k in range(60)], DAYS),
        "latitude": np.tile(LATITUDE[rows], DAYS),
        "longitude": np.tile(LONGITUDE[columns], DAYS),
        "altitude": 0.0,
        "variable": "total_precipitation",
        "value": caught.ravel().round(1),
    }
).sample(frac=0.9, random_state=0)
reports.sort_values(["time", "station"]).to_csv(folder / "gauges.csv", index=False)
reports.head(3)

# %% [markdown]
# ## A training set
#
# State, background and modalities, each under a name. The gauges are put onto the cells in which
# they stand. Rain enters as log(1 + x / 1 mm) with a channel that says whether it rained at all:
# most values are exactly zero, which no scaling would tell the encoder.


# %%
def read(period):
    return {
        "state": open_dataset(folder / "analyses.nc", period=period),
        "background": open_dataset(folder / "forecasts.nc", period=period),
        "radiation": open_dataset(folder / "satellite.nc", period=period),
        "gauges": read_stations(
            folder / "gauges.csv", variable="total_precipitation", units="mm", period=period
        ),
    }


data = training_set(
    read(("2001-01-01", "2004-10-31")),
    {"train": ("2001-01-01", "2003-12-31"), "validation": ("2004-01-01", "2004-10-31")},
    folder / "cache",
    harmonics=1,
    input_transforms={"gauges": InputTransform("log1p+wet", scale=1e-3)},
)
{name: data.archive.fields[name].array.shape for name in data.archive.fields}

# %% [markdown]
# ## Train
#
# The autoencoder sees state, background, gauges and radiation in one latent, with inputs left
# out at random, so that any of them may be missing later. `latent_inputs` are those that analyses
# will encode: what they tell of the latent, and how wrongly, is estimated on the validation period.
# The score network learns hardly anything here beyond the Gaussian prior that it departs from: this
# atmosphere is simple and the training short. The library warns of that; here it is told not to.

# %%
networks = networks_for(
    data,
    autoencoder={"latent_channels": 6, "compression": 2, "width": 24, "blocks": 1},
    score={"window": 3, "widths": (24,), "blocks": 1},
)


def stage(steps):
    optimiser = OptimiserConfig(steps, learning_rate=2e-3, warmup_steps=20, ema_decay=0.99)
    return StageConfig(optimiser, batch_size=16)


logging.getLogger("slams_jax").setLevel(logging.ERROR)
model = train_model(
    folder / "run",
    data,
    networks,
    autoencoder_training=stage(300),
    score_training=stage(500),
    latent_inputs=("gauges", "radiation"),
)
model = load_model(save_model(model, folder / "mine.safetensors"))
print(model.latent_patterns)

# %% [markdown]
# ## Assimilate
#
# Twenty days after the training period, with each set of modalities. The model's file says of what
# its inputs are made, so that they are given as they were read, in units that they state.

# %%
later = read(("2004-11-05", "2004-11-24"))
inputs = {
    "background alone": (),
    "with gauges": ("gauges",),
    "with radiation": ("radiation",),
    "with both": ("gauges", "radiation"),
}
analyses = {
    label: assimilate(
        model,
        later["background"],
        [],
        latent_inputs={name: later[name] for name in names} or None,
        members=8,
        key=jax.random.key(0),
    )
    for label, names in inputs.items()
}

# %% [markdown]
# ## What did they add?

# %%
true = stack_channels(later["state"].load(), model.channels)
weights = model.grid.area_weights()
members = {
    label: np.stack([stack_channels(a.isel(member=i), model.channels) for i in range(8)])
    for label, a in analyses.items()
}
crps = {label: metrics.crps(m, true, weights) for label, m in members.items()}
pd.DataFrame(crps, index=[f"{v:g} hPa" for v in LEVELS]).round(3)

# %% tags=["check"]
alone, both = crps["background alone"], crps["with both"]
assert np.all(both < 0.97 * alone), crps
assert np.all(crps["with gauges"] < 0.995 * alone), crps
assert np.all(both < 1.01 * crps["with radiation"]), crps

# %% [markdown]
# What they add is what the forecast does not know of the ascent. The maps show one day at 500 hPa:

# %%
day = later["state"].time.values[12]
at = lambda dataset: dataset.temperature.sel(time=day, level=500)
truth = at(later["state"])
fields = {
    "background - truth": at(later["background"]) - truth,
    "background alone - truth": at(analyses["background alone"]).mean("member") - truth,
    "with both - truth": at(analyses["with both"]).mean("member") - truth,
}
figure, panels = plt.subplots(1, 3, figsize=(10, 2.6), sharey=True, layout="constrained")
for axis, (name, field) in zip(panels, fields.items(), strict=True):
    shown = field.plot(ax=axis, vmin=-3.0, vmax=3.0, cmap="RdBu_r", add_colorbar=False)
    axis.plot(LONGITUDE[columns], LATITUDE[rows], "k.", markersize=3)
    axis.set(title=name, xlabel="", ylabel="")
figure.colorbar(shown, ax=panels, label="K")
plt.show()

# %% [markdown]
# ## The same from the command line
#
# For a global reanalysis, `configs/prepare_era5.py` has the fields of SLAMS, ERA5 with CPC's gauges
# and NOAA's radiation, each read, regridded and matched in time by `experiments.prepare`
# ([Preparing data](../data.md)). For a climate model, copy it and name your files: `pr` is
# `precipitation_flux`, `rlut` is `outgoing_longwave_radiation`.
# [Rain gauges and radiation](../modalities.md) is the comparison on a moist atmosphere.
