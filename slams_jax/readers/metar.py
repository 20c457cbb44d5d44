"""Surface reports (METAR) in tables of NOAA's MADIS, as Parquet.

Reports are dated by their nominal hour, as analyses are; of several for one hour, the closest to
it is taken, and of equally close ones the last received. Only values that passed at least one stage
of MADIS's quality control are used (C coarse, S screened, V verified, G by hand), not those that
failed (X, B), are questioned (Q) or were not checked (Z).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slams_jax.errors import InputError, first_line
from slams_jax.schema import ALTITUDE, LATITUDE, LONGITUDE, STATION, TIME

_GOOD = ("C", "S", "V", "G")
_COLUMNS = {  # library name -> (column, units)
    "temperature": ("temperature", "K"),
    "2m_temperature": ("temperature", "K"),
    "mean_sea_level_pressure": ("seaLevelPress", "Pa"),
}


def metar_records(path: Path, name: str) -> tuple[Any, str]:
    """(records, units): a table with a row for each value that passed quality control.

    Args:
        path: the Parquet file.
        name: library name of the variable.

    Raises:
        InputError: no pyarrow, an unreadable file, a variable that is not read from METARs, missing
            columns, or no value that passed.
    """
    if name not in _COLUMNS:
        raise InputError(f"{path}: METARs are read for {', '.join(_COLUMNS)}, not for {name!r}")
    column, units = _COLUMNS[name]
    flags = f"{column}DD"
    wanted = ["stationName", "latitude", "longitude", "elevation", "timeNominal", "timeObs"]
    table = _read(path, [*wanted, "timeReceived", column, flags])
    table = table[table[flags].isin(_GOOD) & np.isfinite(table[column])]
    table = table.dropna(subset=["latitude", "longitude", "elevation", "timeNominal"])
    if table.empty:
        raise InputError(f"{path}: no {name} passed quality control ({flags} in {_GOOD})")
    table = table.assign(distance=(table["timeObs"] - table["timeNominal"]).abs())
    table = table.sort_values(["distance", "timeReceived"], ascending=[True, False], kind="stable")
    table = table.drop_duplicates(["stationName", "timeNominal"]).sort_values("timeNominal")
    records = {
        TIME: table["timeNominal"].to_numpy("datetime64[ns]"),
        STATION: table["stationName"].astype(str).to_numpy(),
        LATITUDE: np.round(table["latitude"].to_numpy(np.float64), 4),
        LONGITUDE: np.round(table["longitude"].to_numpy(np.float64), 4),
        ALTITUDE: table["elevation"].to_numpy(np.float64),
        "value": table[column].to_numpy(np.float64),
    }
    return pd.DataFrame(records), units


def _read(path: Path, columns: list[str]) -> Any:
    try:
        return pd.read_parquet(path, columns=columns, engine="pyarrow")
    except ImportError as error:
        raise InputError(
            f"{path}: Parquet needs pyarrow: install it with `pip install 'slams-jax[parquet]'`"
        ) from error
    except Exception as error:  # pyarrow has exceptions of its own
        reason = first_line(error)
        raise InputError(
            f"{path}: not a readable table of METARs with {', '.join(columns)} ({reason[:160]}): "
            "download it again"
        ) from error
