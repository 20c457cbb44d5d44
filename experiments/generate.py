"""Generate a nature run: a true state, an imperfect background and simulated observations.

    python -m experiments.generate --config=configs/held_suarez.py [--config.nature.days=100 ...]

The result is a folder of CF NetCDF files under `nature.cache`, named by a digest of its settings;
it is used again when it is there, and it is there whole or not at all. Dates begin on 2000-01-01
and are nominal: the systems have no seasons.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from absl import logging

from experiments.configuration.nature import (
    HeldSuarezRun,
    Lorenz63Run,
    NatureRun,
    SounderSettings,
    read,
)
from experiments.configuration.settings import CONFIG, plain
from experiments.process import cli
from slams_jax.dynamics import held_suarez, lorenz63
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.observe import Points, simulate, standard_pressure
from slams_jax.observe.satellite import OutgoingLongwave, Sounder
from slams_jax.readers.gridded import COORDINATE_ATTRIBUTES
from slams_jax.schema import VARIABLES, channels_of

FORMAT = 2  # counts up when the same settings begin to give other files
FIRST_DAY = np.datetime64("2000-01-01", "ns")
COMPLETE = "config.json"


def main() -> None:
    """Generate what the flags say."""
    values = plain(CONFIG.value)
    if set(values) != {"nature"}:
        raise InputError(
            f"a generating configuration has the one field 'nature', got {sorted(values)}"
        )
    print(nature_run(values["nature"]))


def nature_run(settings: NatureRun | Mapping[str, Any]) -> Path:
    """The folder of a nature run: the one that is there, or a new one.

    It holds `state.nc` and `background.nc`; a Held-Suarez run also `stations.nc`, `sounder.nc` and
    `olr.nc`; and `config.json`.

    Raises:
        InputError: settings that are unknown or out of range, or a folder that cannot be written.
        RunError: the model became unstable.
    """
    run = settings if isinstance(settings, NatureRun) else read(settings)
    name = "lorenz63" if isinstance(run, Lorenz63Run) else "held_suarez"
    chosen = dataclasses.asdict(run)
    root = Path(chosen.pop("cache")).expanduser()
    text = json.dumps({"format": FORMAT, "system": name, **chosen}, indent=1, sort_keys=True)
    final = root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if (final / COMPLETE).is_file():
        logging.info("nature run %s: used again", final)
        return final
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=root))
    except OSError as error:
        raise InputError(f"{root} cannot be written ({error.strerror}): set nature.cache") from None
    try:
        datasets = _held_suarez(run) if isinstance(run, HeldSuarezRun) else _lorenz63(run)
        for file, dataset in datasets.items():
            dataset.to_netcdf(partial / f"{file}.nc", engine="h5netcdf")
        (partial / COMPLETE).write_text(text)
        partial.chmod(0o755)
        _settle(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    logging.info("nature run %s: written", final)
    return final


def _settle(partial: Path, final: Path) -> None:
    try:
        os.rename(partial, final)
    except OSError:
        # Somebody else finished the same run meanwhile; theirs is as good.
        if not (final / COMPLETE).is_file():
            raise


def _lorenz63(run: Lorenz63Run) -> dict[str, xr.Dataset]:
    fields = lorenz63.nature_run(
        run.model,
        jax.random.key(run.seed),
        length=run.days,
        dt=run.dt,
        substeps=run.substeps,
        spin_up=run.spin_up,
        amplitude=run.amplitude,
    )
    grid = Grid((0.0,), (0.0,))
    dims = ("time", "latitude", "longitude", "component")
    attributes = {"long_name": "x, y and z of Lorenz (1963)", "units": "1"}
    return {
        name: _dataset({"lorenz63": (dims, np.asarray(x)[:, None, None], attributes)}, grid)
        for name, x in zip(("state", "background"), fields, strict=True)
    }


def _held_suarez(run: HeldSuarezRun) -> dict[str, xr.Dataset]:
    channels = channels_of(["temperature"], run.levels)
    longwave, sounder = OutgoingLongwave.of(channels), Sounder.of(channels, peaks=run.sounder.peaks)
    atmosphere = held_suarez.held_suarez(run.model)
    grid = atmosphere.grid
    key_run, key_place, key_gap, key_stations, key_sounder, key_longwave = jax.random.split(
        jax.random.key(run.seed), 6
    )
    network = simulate.station_network(
        key_place, grid, run.stations.count, clusters=run.stations.clusters
    )
    points = Points.at(
        grid, channels, network.latitude, network.longitude, standard_pressure(network.altitude)
    )
    states, backgrounds = held_suarez.nature_run(
        atmosphere,
        key_run,
        days=run.days,
        spin_up=run.spin_up,
        amplitude=run.amplitude,
        report=_Progress(),
    )
    truth, background = (
        held_suarez.temperature(atmosphere, x, run.levels) for x in (states, backgrounds)
    )
    seen = jnp.asarray(truth)
    off = simulate.outages(key_gap, run.days, run.stations.count, missing=run.stations.missing)
    observed = {
        "stations": simulate.measure(
            key_stations, np.asarray(points(seen)), run.stations.error, ~off
        ),
        "sounder": simulate.measure(
            key_sounder,
            np.asarray(sounder(seen)),
            np.asarray(run.sounder.error),
            simulate.swath(grid, run.days),
        ),
        # Another satellite, half an orbit later.
        "olr": simulate.measure(
            key_longwave,
            np.asarray(longwave(seen)),
            run.longwave_error,
            simulate.swath(grid, run.days, first_orbit=0.5),
        ),
    }
    return {
        "state": _temperature(truth, grid, run.levels),
        "background": _temperature(background, grid, run.levels),
        "stations": _stations(observed["stations"], network, run.stations.error),
        "sounder": _brightness(observed["sounder"], grid, run.sounder),
        "olr": _dataset(
            {
                "outgoing_longwave_radiation": (
                    ("time", "latitude", "longitude"),
                    observed["olr"],
                    _attributes("outgoing_longwave_radiation", run.longwave_error),
                )
            },
            grid,
        ),
    }


def _temperature(values: np.ndarray, grid: Grid, levels: tuple[float, ...]) -> xr.Dataset:
    dims = ("time", "level", "latitude", "longitude")
    field = (dims, np.moveaxis(values, -1, 1), _attributes("temperature"))
    return _dataset(
        {"temperature": field},
        grid,
        {"level": ("level", list(levels), COORDINATE_ATTRIBUTES["level"])},
    )


def _stations(values: np.ndarray, network: simulate.Network, error: float) -> xr.Dataset:
    height = {"standard_name": "height_above_mean_sea_level", "units": "m"}
    horizontal = {
        name: (
            "station",
            getattr(network, name),
            {k: v for k, v in COORDINATE_ATTRIBUTES[name].items() if k != "axis"},
        )
        for name in ("latitude", "longitude")
    }
    names = [f"S{i:03d}" for i in range(values.shape[1])]
    return _dataset(
        {"temperature": (("time", "station"), values, _attributes("temperature", error))},
        None,
        {"station": names, **horizontal, "altitude": ("station", network.altitude, height)},
    )


def _brightness(values: np.ndarray, grid: Grid, sounder: SounderSettings) -> xr.Dataset:
    dims = ("time", "sounding_channel", "latitude", "longitude")
    attributes = _attributes("brightness_temperature", sounder.error)
    along = ("sounding_channel",)
    return _dataset(
        {"brightness_temperature": (dims, np.moveaxis(values, -1, 1), attributes)},
        grid,
        {
            "sounding_channel": (along, np.arange(1, len(sounder.peaks) + 1)),
            "peak": (along, list(sounder.peaks), {"units": "hPa", "long_name": "peak pressure"}),
            "error": (along, list(sounder.error), {"units": "K", "long_name": "observation error"}),
        },
    )


def _dataset(variables: dict, grid: Grid | None, coordinates: dict | None = None) -> xr.Dataset:
    """A CF dataset: dates, the coordinates of the grid, and others."""
    count = len(next(iter(variables.values()))[1])
    days = FIRST_DAY + np.arange(count) * np.timedelta64(1, "D")
    axes: dict[str, Any] = {"time": ("time", days, COORDINATE_ATTRIBUTES["time"])}
    if grid is not None:
        for name in ("latitude", "longitude"):
            axes[name] = (name, list(getattr(grid, name)), COORDINATE_ATTRIBUTES[name])
    attributes = {"Conventions": "CF-1.11", "comment": "a nature run; its dates are nominal"}
    return xr.Dataset(variables, {**axes, **(coordinates or {})}, attributes)


def _attributes(name: str, error: float | tuple[float, ...] | None = None) -> dict[str, Any]:
    known = VARIABLES[name]
    about = {
        "units": known.units,
        "standard_name": known.standard_name,
        "long_name": known.long_name,
    }
    return about if error is None else {**about, "error": error}


class _Progress:
    """Says every ten seconds how far a stage is."""

    def __init__(self):
        self.stage, self.started, self.said = "", 0.0, 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.started, self.said = stage, now, now
        if now - self.said < 10.0 and done < total:
            return
        self.said = now
        each = (now - self.started) / max(1, done - 1)
        logging.info(
            "%s: %d of %d days, %.2f s/day, %.0f s left",
            stage,
            done,
            total,
            each,
            each * (total - done),
        )


if __name__ == "__main__":
    cli.run(main)
