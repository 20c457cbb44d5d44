# %% [markdown]
# # Train and share a model from Python
#
# From xarray Datasets to a trained model, one file that holds it, and an analysis made with that
# file: everything with the installed library alone. The world is tiny and training is short, so
# that the page runs in about a minute; use your own Datasets and more steps.

# %%
import logging
import sys
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from slams_jax import (
    Observations,
    OptimiserConfig,
    StageConfig,
    assimilate,
    load_model,
    networks_for,
    save_model,
    train_model,
    training_set,
)

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The Datasets
#
# A *state* to learn (temperature on two levels), a *background* that approximates it, and two
# kinds of observations: surface stations, and satellite retrievals of the upper level that are
# available at two thirds of the points.

# %%
DAYS, LEVEL = 200, [500.0, 1000.0]
LATITUDE, LONGITUDE = np.arange(-78.75, 80.0, 22.5), np.arange(0.0, 360.0, 22.5)
rng = np.random.default_rng(0)
time = np.datetime64("2001-01-01", "ns") + np.arange(DAYS) * np.timedelta64(1, "D")


def waves(size, memory):
    """Smooth noise (time, lat, lon, level) of the given size in K, correlated in time."""
    lat, lon = np.deg2rad(LATITUDE)[:, None], np.deg2rad(LONGITUDE)[None]
    shapes = [np.cos(lat) ** m * f(m * lon) for m in range(4) for f in (np.cos, np.sin)]
    amplitude = rng.standard_normal((DAYS, len(shapes), 2))
    for day in range(1, DAYS):
        amplitude[day] = memory * amplitude[day - 1] + np.sqrt(1 - memory**2) * amplitude[day]
    return size * np.einsum("tpk,pij->tijk", amplitude, np.stack([s + 0 * lon for s in shapes]))


def field(values, levels=LEVEL):
    coords = {"time": time, "latitude": LATITUDE, "longitude": LONGITUDE}
    coords["level"] = ("level", levels, {"units": "hPa"})
    dims = ("time", "latitude", "longitude", "level")
    return xr.Dataset({"temperature": (dims, values.astype("float32"), {"units": "K"})}, coords)


truth = np.array([250.0, 285.0]) + waves(3.0, 0.8)
small = 0.2 * rng.standard_normal(truth.shape)
retrieved = truth[..., :1] + 1.0 * rng.standard_normal((*truth.shape[:3], 1))
retrieved[rng.random(retrieved.shape) < 1 / 3] = np.nan
rows, columns = rng.integers(0, LATITUDE.size, 30), rng.integers(0, LONGITUDE.size, 30)
reports = truth[:, rows, columns, 1] + 0.5 * rng.standard_normal((DAYS, 30))

state = field(truth)
background = field(truth + waves(1.0, 0.5) + small)
satellite = field(retrieved, LEVEL[:1])
stations = xr.Dataset(
    {"temperature": (("time", "station"), reports.astype("float32"), {"units": "K"})},
    {
        "time": time,
        "latitude": ("station", LATITUDE[rows]),
        "longitude": ("station", LONGITUDE[columns]),
        "altitude": ("station", np.full(30, 110.9)),  # 1000 hPa in the standard atmosphere
    },
)

# %% [markdown]
# ## Train
#
# `training_set` checks the Datasets, puts the stations on the cells of the grid, fits climatology
# and scale to the training period and keeps the arrays in a folder. `train_model` trains the
# autoencoder and the score network; the library's logger shows the progress. If you repeat the
# call, it resumes where it stopped.

# %%
logging.basicConfig(stream=sys.stdout, format="%(message)s")
logging.getLogger("slams_jax").setLevel("INFO")

periods = {
    "train": ("2001-01-01", "2001-05-31"),
    "validation": ("2001-06-01", "2001-06-30"),
    "test": ("2001-07-02", "2001-07-08"),
}
fields = {"state": state, "background": background, "stations": stations}
fields["satellite"] = satellite
data = training_set(fields, periods, folder / "cache")
networks = networks_for(
    data,
    autoencoder={"latent_channels": 6, "compression": 2, "width": 16, "blocks": 1},
    score={"window": 3, "widths": (16,), "blocks": 1},
)
stage = StageConfig(
    OptimiserConfig(steps=300, learning_rate=3e-3, warmup_steps=20, ema_decay=0.98),
    batch_size=16,
    log_every=100,
    checkpoint_every=300,
)
model = train_model(
    folder / "run",
    data,
    networks,
    autoencoder_training=stage,
    score_training=stage,
    rank=20,
)

# %% [markdown]
# ## Save, and load elsewhere
#
# One file holds the parameters, the statistics and a description of the data; a model card is
# written beside it. `load_model` also takes the URL of such a file.

# %%
path = save_model(model, folder / "mine.safetensors", licence="CC-BY-4.0")
print(path.with_suffix(".md").read_text()[:600])
model = load_model(path)

# %% [markdown]
# ## Assimilate and score
#
# Both kinds of observations enter through their operators, and the background with the error
# covariance that was estimated in training. Training this short leaves its traces: the log warns
# that the analysis fits the background less closely than the small errors of this world ask for.

# %%
week = {"time": slice("2001-07-02", "2001-07-08")}
analysis = assimilate(
    model,
    background.sel(week),
    [
        Observations("stations", stations.sel(week), "points", error=0.5),
        Observations("satellite", satellite.sel(week), "grid", error=1.0),
    ],
    members=8,
    key=jax.random.key(0),
)
mean, true = analysis.temperature.mean("member"), state.temperature.sel(week)
rmse = lambda x: (((x - true) ** 2).mean(("time", "latitude", "longitude")) ** 0.5).values
scores = {"background": rmse(background.temperature.sel(week)), "analysis": rmse(mean)}
for name, values in scores.items():
    print(
        f"{name:10s}",
        *(f"{level:g} hPa {v:.2f} K  " for level, v in zip(LEVEL, values, strict=True)),
    )

# %% tags=["check"]
assert np.all(scores["analysis"] < scores["background"]), scores
assert np.isfinite(analysis.temperature).all()

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 2.6), sharey=True, layout="constrained")
day = {"time": 3, "level": 1}
panels = {
    "truth": true,
    "background - truth": background.temperature.sel(week) - true,
    "analysis - truth": mean - true,
}
for axis, (title, panel) in zip(axes, panels.items(), strict=True):
    limits = {} if title == "truth" else {"vmin": -3, "vmax": 3, "cmap": "RdBu_r"}
    panel = panel.transpose("time", "level", "latitude", "longitude").isel(day)
    image = axis.pcolormesh(LONGITUDE, LATITUDE, panel, **limits)
    figure.colorbar(image, ax=axis, label="K")
    axis.set(title=title, xlabel="longitude")
