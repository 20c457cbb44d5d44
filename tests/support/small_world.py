"""A tiny synthetic world on disk, a configuration for it, and the commands run in this process."""

import copy
import dataclasses
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import xarray as xr
from absl import flags
from ml_collections import ConfigDict

from configs import held_suarez
from experiments import train
from experiments.configuration.build import plain
from experiments.configuration.settings import read
from experiments.process import cli
from slams_jax.models import train as models_train
from slams_jax.observe.satellite import OutgoingLongwave, Sounder
from slams_jax.records import as_json
from slams_jax.schema import channels_of
from slams_jax.training.checkpoint import Checkpoints

LATITUDE = np.arange(-78.75, 80.0, 22.5)
LONGITUDE = np.arange(0.0, 360.0, 22.5)
LEVELS = (20.0, 300.0, 1000.0)
DAYS, STATIONS = 80, 24
CLIMATE, SPREAD = np.array([210.0, 230.0, 285.0]), np.array([3.0, 5.0, 6.0])  # K, on LEVELS
SOUNDER_ERROR, OLR_ERROR = (0.5,) * 6, 5.0
PERIODS = {
    "train": ("2001-01-01", "2001-02-19"),  # 50 days
    "validation": ("2001-02-20", "2001-03-04"),  # 13
    "test": ("2001-03-05", "2001-03-21"),  # 17
}


def smooth_noise(rng: np.random.Generator, days: int) -> np.ndarray:
    """Unit variance (time, lat, lon, level), correlated in time, space and the vertical."""
    lat, lon = np.deg2rad(LATITUDE)[:, None], np.deg2rad(LONGITUDE)[None]
    patterns = [np.cos(lat) ** m * f(m * lon) for m in range(4) for f in (np.cos, np.sin)]
    patterns += [np.sin(lat) * p for p in patterns]
    patterns = np.stack([p + 0.0 * lon for p in patterns])
    vertical = np.linalg.cholesky(0.7 ** np.abs(np.subtract.outer(np.arange(3), np.arange(3))))
    white = rng.standard_normal((days + 20, len(patterns), 3)) @ vertical.T
    for day in range(1, len(white)):
        white[day] = 0.8 * white[day - 1] + 0.6 * white[day]
    return np.einsum("tpk,pij->tijk", white[20:], patterns) / np.sqrt(
        (patterns**2).sum(axis=0).mean()
    )


def times(days: int = DAYS) -> np.ndarray:
    return np.datetime64("2001-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D")


def world_arrays(seed: int = 0, days: int = DAYS) -> tuple[np.ndarray, np.ndarray]:
    """Truth and background (time, lat, lon, level), K."""
    rng = np.random.default_rng(seed)
    zonal = -40.0 * np.sin(np.deg2rad(LATITUDE))[:, None, None] ** 2 * np.array([0.1, 0.5, 1.0])
    truth = CLIMATE + zonal + SPREAD * smooth_noise(rng, days)
    background = truth + 0.4 * SPREAD * smooth_noise(rng, days) + 0.3
    # What a smooth field leaves out, so that errors have variance in every direction.
    background = background + 0.05 * SPREAD * rng.standard_normal(truth.shape)
    return truth.astype(np.float32), background.astype(np.float32)


def gridded(values: np.ndarray, name: str = "temperature", units: str = "K", **attrs) -> xr.Dataset:
    """(time, lat, lon[, channel]) as a file has it."""
    dims = ("time", "latitude", "longitude") + (("level",) if values.ndim == 4 else ())
    coords = {
        "time": times(len(values)),
        "latitude": ("latitude", LATITUDE, {"units": "degrees_north"}),
        "longitude": ("longitude", LONGITUDE, {"units": "degrees_east"}),
    }
    if values.ndim == 4:
        coords["level"] = ("level", np.array(LEVELS), {"units": "hPa"})
    return xr.Dataset({name: (dims, values, {"units": units, **attrs})}, coords)


def station_data(truth: np.ndarray, seed: int = 1, error: float = 0.5) -> xr.Dataset:
    """Surface temperature of cells of the grid, so that no interpolation is needed to know it."""
    rng = np.random.default_rng(seed)
    cells = rng.permutation(len(LATITUDE) * len(LONGITUDE))[:STATIONS]
    i, j = np.divmod(cells, len(LONGITUDE))
    values = truth[:, i, j, -1] + error * rng.standard_normal((len(truth), STATIONS))
    values[rng.random(values.shape) < 0.1] = np.nan
    return xr.Dataset(
        {"temperature": (("time", "station"), values.astype(np.float32), {"units": "K"})},
        {
            "time": times(len(truth)),
            "station": [f"S{k:02d}" for k in range(STATIONS)],
            "latitude": ("station", LATITUDE[i]),
            "longitude": ("station", LONGITUDE[j]),
            # 1000 hPa in the standard atmosphere, the lowest level
            "altitude": ("station", np.full(STATIONS, 110.88)),
        },
    )


def gauge_data(stations: xr.Dataset) -> xr.Dataset:
    """Rain (mm) at the stations, where it is warmer than usual there; dry elsewhere."""
    warm = stations.temperature - stations.temperature.mean("time")
    rain = warm.clip(min=0.0).assign_attrs(units="mm")
    return stations.drop_vars("temperature").assign(total_precipitation=rain)


def satellite_data(truth: np.ndarray, seed: int = 2) -> dict[str, xr.Dataset]:
    rng = np.random.default_rng(seed)
    channels = channels_of(["temperature"], LEVELS)
    bright = np.array(Sounder.of(channels)(jax.numpy.asarray(truth)))
    bright += np.asarray(SOUNDER_ERROR, np.float32) * rng.standard_normal(bright.shape)
    flux = np.array(OutgoingLongwave.of(channels)(jax.numpy.asarray(truth)))
    flux += OLR_ERROR * rng.standard_normal(flux.shape)
    gap = rng.random(flux.shape) < 0.3
    bright[gap], flux[gap] = np.nan, np.nan
    sounder = gridded(bright[..., 0], "brightness_temperature", error=SOUNDER_ERROR)
    dims = ("time", "latitude", "longitude", "sounding_channel")
    sounder["brightness_temperature"] = (dims, bright, sounder.brightness_temperature.attrs)
    longwave = gridded(flux, "outgoing_longwave_radiation", "W m-2", error=OLR_ERROR)
    return {"sounder": sounder, "olr": longwave}


def write_world(root: Path, seed: int = 0) -> Path:
    """The files of the world, as `experiments.generate` names them."""
    root.mkdir(parents=True, exist_ok=True)
    truth, background = world_arrays(seed)
    datasets = {
        "state": gridded(truth),
        "background": gridded(background),
        "stations": (stations := station_data(truth)),
        "gauges": gauge_data(stations),
        **satellite_data(truth),
    }
    for name, dataset in datasets.items():
        dataset.to_netcdf(root / f"{name}.nc", engine="h5netcdf")
    return root


def small_config(root: Path, workdir: Path) -> ConfigDict:
    """The configuration of the Held-Suarez run, for the world at `root`, in seconds."""
    config = held_suarez.get_config()
    config.workdir = str(workdir)
    config.nature = None
    config.data.root = str(root)
    config.data.cache = str(root / "cache")
    config.data.levels = LEVELS
    config.data.periods = copy.deepcopy(PERIODS)
    config.autoencoder.update(latent_channels=8, width=8, blocks=1)
    config.score.update(widths=(8,), blocks=1)
    config.score.embedding = 8
    for stage in ("autoencoder_training", "score_training"):
        config[stage].update(steps=6, batch_size=4, warmup_steps=1, log_every=3, checkpoint_every=3)
    config.sampler.steps = 4
    config.assimilation.update(frames=5, members=3, member_batch=0, rank=20)
    config.assimilation.update(window_devices=1, space_devices=1)
    return config


def write_config(config: ConfigDict, path: Path) -> Path:
    """A configuration file, as those in `configs`."""
    path.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict({plain(config)!r})\n"
    )
    return path


def untrained(config: ConfigDict, *, steps: int = 1) -> None:
    """What `experiments.train` leaves in the work directory, with random parameters."""

    def fit(directory, loss_fn, init_fn, loader, *, optimiser, seed, metadata, statistics, **_):
        params, model_state = init_fn(jax.random.key(seed))
        kept = as_json(dict(metadata), name="metadata")
        run = {"config": kept["config"], "seed": seed, **dataclasses.asdict(optimiser)}
        checkpoints = Checkpoints(
            Path(directory).absolute(), run=run, metadata=kept, statistics=statistics
        )
        checkpoints.save({}, {"ema": params, "model_state": model_state}, {}, step=steps)
        checkpoints.close()

    with mock.patch.object(models_train, "fit", fit):
        train.train(read(config))


def forget(values: flags.FlagValues) -> None:
    """Forget the flags of an earlier command, and the overrides that it had defined."""
    values.unparse_flags()
    for name in [n for n in values if n.startswith("config.")]:
        delattr(values, name)


def run_command(main: Callable[[], None], *arguments: str) -> int:
    """The exit status of a command, run in this process with the flags of a command line."""
    values = main.__globals__["FLAGS"]
    forget(values)
    with mock.patch.object(sys, "argv", ["command", *arguments]), warnings.catch_warnings():
        # How ml_collections loads a configuration file.
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
        try:
            cli.run(main, values)
        except SystemExit as stop:
            return int(stop.code or 0)
    raise AssertionError("a command ends by leaving")


def tree(folder: Path) -> list[str]:
    """Every file below `folder`, hidden ones too.

    But not the finished selections in a cache, nor what Python keeps of imported configurations.
    """
    finished = [p.parent for p in folder.glob("**/cache/*/index.json")]
    return sorted(
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if "__pycache__" not in p.parts and not any(p.is_relative_to(f) for f in finished)
    )
