"""Nature runs on disk: each is generated once and reused wherever its settings recur."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

import xarray as xr

from slams_jax.dynamics.moist_data import moist_data
from slams_jax.dynamics.nature_config import HeldSuarezRun, KolmogorovRun, Lorenz63Run, NatureRun
from slams_jax.dynamics.nature_data import held_suarez_data, kolmogorov_data, lorenz63_data
from slams_jax.errors import InputError
from slams_jax.storage import locked

LOG = logging.getLogger(__name__)

FORMAT = 3  # raised whenever the same settings give different files
COMPLETE = "config.json"


def nature_run(run: NatureRun) -> Path:
    """The folder of a nature run, which is generated unless an earlier call left it.

    The folder stands below `run.cache`, is named by a digest of the settings, and is complete or
    absent. It holds CF NetCDF: `state.nc`, and `background.nc` except for a Kolmogorov flow; for
    Held-Suarez also `stations.nc`, `sounder.nc` and `olr.nc`; for the moist atmosphere
    `surface.nc`, `gauges.nc`, `stations.nc`, `soundings.nc` and `olr.nc`; and the settings,
    `config.json`. A moist run that was killed resumes; the result is the same, bit for bit.

    Raises:
        InputError: levels that do not suit the model, a folder that cannot be written, or a moist
            run that another process is generating.
        RunError: the model became unstable.
    """
    chosen = dataclasses.asdict(run)
    root = Path(chosen.pop("cache")).expanduser()
    settings = {"format": FORMAT, "system": run.system, **chosen}
    text = json.dumps(settings, indent=1, sort_keys=True)
    final = root / f"{run.system}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if (final / COMPLETE).is_file():
        LOG.info("nature run %s: reused", final)
        return final
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=root))
    except OSError as error:
        raise InputError(f"{root} cannot be written ({error.strerror}): set nature.cache") from None
    try:
        for file, dataset in _datasets(run, root / f".{final.name}.parts").items():
            dataset.to_netcdf(partial / f"{file}.nc", engine="h5netcdf")
        (partial / COMPLETE).write_text(text)
        partial.chmod(0o755)
        _settle(partial, final)
        shutil.rmtree(root / f".{final.name}.parts", ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    LOG.info("nature run %s: written", final)
    return final


def _datasets(run: NatureRun, parts: Path) -> dict[str, xr.Dataset]:
    if isinstance(run, Lorenz63Run):
        return lorenz63_data(run)
    if isinstance(run, KolmogorovRun):
        return kolmogorov_data(run)
    if isinstance(run, HeldSuarezRun):
        return held_suarez_data(run)
    with locked(parts):
        return moist_data(run, parts)


def _settle(partial: Path, final: Path) -> None:
    try:
        os.rename(partial, final)
    except OSError:
        # Another process finished the same run meanwhile; its files are the same.
        if not (final / COMPLETE).is_file():
            raise
