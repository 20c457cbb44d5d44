# %% [markdown]
# # A first analysis
#
# The library comes with a small trained model, so an analysis needs no data and no training. Here
# the truth is a draw from the model's own prior, so the ensemble ought to be as wrong as it says it
# is. With a real atmosphere the model's own errors come on top; this page leaves them out.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from slams_jax import Observations, SamplerConfig, assimilate, demo_model
from slams_jax.verify import metrics

model = demo_model()
print(f"grid {model.grid.shape}, a time step of {model.time_step.astype('timedelta64[h]')}")
print("levels", *(f"{c.level:g}" for c in model.channels), "hPa")

# %% [markdown]
# The model was trained on a year of a simulated atmosphere with seasons, land and rain, at T21.
# Without background and observations, `assimilate` draws from the prior: here three days of
# temperature, which will be the truth.

# %%
days = np.datetime64("2001-03-01", "ns") + np.arange(3) * np.timedelta64(1, "D")
sampler = SamplerConfig(steps=24)
prior = assimilate(
    model, None, [], members=9, times=days, key=jax.random.key(0), sampler=sampler
).temperature
truth, prior = prior.isel(member=0, drop=True), prior.isel(member=slice(1, None))
prior.sizes

# %% [markdown]
# ## Observe it
#
# 300 radiosondes a day, somewhere on the globe, measure 500 and 850 hPa with errors of half a
# kelvin; a third of the reports is lost. Observations are a Dataset, missing values are NaN.

# %%
rng = np.random.default_rng(1)
STATIONS, LEVELS, ERROR = 300, (500.0, 850.0), 0.5
places = {
    "latitude": ("station", np.rad2deg(np.arcsin(rng.uniform(-0.99, 0.99, STATIONS)))),
    "longitude": ("station", rng.uniform(0.0, 360.0, STATIONS)),
}


def sounding(level):
    """Temperature (time, station) at one level, with errors and gaps."""
    there = truth.sel(level=level).pad(longitude=(1, 1), mode="wrap")
    there["longitude"] = np.r_[model.grid.longitude[-1] - 360, model.grid.longitude, 360.0]
    there = there.interp({k: xr.DataArray(v[1], dims=v[0]) for k, v in places.items()})
    values = there.values + ERROR * rng.standard_normal(there.shape)
    values[rng.random(values.shape) < 1 / 3] = np.nan
    return xr.Dataset(
        {"temperature": (("time", "station"), values, {"units": "K"})},
        {"time": days, **places, "level": ("station", np.full(STATIONS, level))},
    )


observations = [
    Observations(f"soundings at {level:g} hPa", sounding(level), "points", error=ERROR)
    for level in LEVELS
]
observations[0].data

# %% [markdown]
# ## Analyse
#
# The same call, now with observations. Progress goes to the log; the attributes of the result say
# how many evaluations of the network each member took, and how well each stream was fitted.

# %%
analysis = assimilate(
    model, None, observations, members=8, times=days, key=jax.random.key(2), sampler=sampler
)
print(analysis.attrs["evaluations"], "evaluations a member")
analysis

# %% [markdown]
# ## Is it any good?
#
# Where nothing is observed, between the levels and above them, the prior carries what was seen to
# the rest of the column. RMSE of the ensemble's mean against its spread, level by level:

# %%
weights = model.grid.area_weights()


def fields(data):
    """Values, channels last, as the scores take them."""
    return np.moveaxis(data.values, data.get_axis_num("level"), -1)


scores = {
    name: (
        metrics.asymptotic_rmse(fields(members), fields(truth), weights),
        metrics.spread(fields(members), fields(truth), weights),
    )
    for name, members in {"prior": prior, "analysis": analysis.temperature}.items()
}
print("             prior         analysis")
print("         RMSE  spread    RMSE  spread")
for k, level in enumerate(truth.level.values):
    print(f"{level:5.0f} hPa", *(f"{x[k]:6.2f}" for pair in scores.values() for x in pair), "K")

# %% tags=["check"]
error, spread = scores["analysis"]
assert (error < 0.9 * scores["prior"][0]).all()
np.testing.assert_allclose(np.sqrt(np.mean(spread**2) / np.mean(error**2)), 1.0, atol=0.15)

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
at = dict(time=1, drop=True)
members = analysis.temperature.sel(level=850.0).isel(**at)
pictures = {
    "truth, 850 hPa (K)": (truth.sel(level=850.0).isel(**at), "RdBu_r", (240.0, 305.0)),
    "mean of the analysis (K)": (members.mean("member"), "RdBu_r", (240.0, 305.0)),
    "spread (K)": (members.std("member", ddof=1), "viridis", (0.0, None)),
}
seen = observations[1].data.isel(time=1).dropna("station")
for axis, (title, (field, cmap, (low, high))) in zip(axes, pictures.items(), strict=True):
    image = axis.pcolormesh(
        field.longitude, field.latitude, field, cmap=cmap, vmin=low, vmax=high, rasterized=True
    )
    axis.set(title=title, xlabel="longitude")
    figure.colorbar(image, ax=axis)
axes[2].plot(seen.longitude, seen.latitude, "w.", markersize=2)
axes[2].set_xlim(axes[0].get_xlim())
axes[0].set_ylabel("latitude")
plt.show()

# %% [markdown]
# Spread and error agree, since the prior is right by construction; dots are the soundings of the
# day. From here:
#
# - your own truth and background: [Your own data](own_data.py) trains a model on files;
# - your own instrument: [Your own observation operator](own_operator.py);
# - a real test, with an imperfect background and classical competitors: `make demo`, described in
#   [Results](../results.md).
