"""What enters an analysis from memory: read as a file is read, and brought onto the model's grid.

A Dataset that the user made or opened goes through the checks of `slams_jax.readers.from_dataset`:
names, order, units by their attributes, plausible values, times. What comes out is in the library's
schema and units; here it is then matched with the model by coordinate values, never by shape.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from slams_jax.assimilation.streams import check_latent_inputs
from slams_jax.data import standardise
from slams_jax.data.archive import STATE
from slams_jax.data.channels import COMPONENT, stack_channels, stack_members
from slams_jax.data.gridding import on_cells
from slams_jax.data.resample import shared_times
from slams_jax.data.training_data import BACKGROUND
from slams_jax.data.transforms import WET, transform
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.models.model import Model
from slams_jax.readers import from_dataset, from_stations
from slams_jax.readers.coordinates import role_of
from slams_jax.readers.units import canonical_name, conversion, units_of
from slams_jax.schema import (
    ALTITUDE,
    CHANNEL,
    COORDINATE_ALIASES,
    ERROR,
    LATITUDE,
    LEVEL,
    LONGITUDE,
    MEMBER,
    TIME,
    VARIABLES,
    Channel,
)

SAME = 1e-3  # degrees within which two coordinates are the same: files store them as float32


def model_fields(dataset: Any, channels: Sequence[Channel], grid: Grid, *, name: str) -> xr.Dataset:
    """Fields of the state, such as a background or an analysis, in the schema and on the grid.

    Args:
        dataset: the variables and levels of the state, in any order and units that they state;
            ensemble members, if any, stand along `member`.
        channels: of the state.
        grid: of the state.
        name: what to call it in errors.

    Raises:
        InputError: what `from_dataset` refuses, or another grid.
    """
    variables = list(dict.fromkeys(c.variable for c in channels))
    if isinstance(dataset, xr.Dataset):
        dataset = _with_channel(_in_order_of_time(dataset), {COMPONENT})
    data = from_dataset(dataset, variables=variables, name=name).load()
    return on_grid(data, grid.latitude, grid.longitude, name=name)


def background_fields(
    background: Any, model: Model
) -> tuple[np.ndarray, Float[np.ndarray, "member time lat lon channel"]]:
    """Times and values of a background, on the grid of the model: one member, or an ensemble.

    Raises:
        InputError: as `model_fields`; values that some members have and others lack.
    """
    data = model_fields(background, model.channels, model.grid, name="the background")
    if MEMBER not in data.dims:
        data = data.expand_dims(MEMBER)
    values = stack_members(data, model.channels)
    seen = np.isfinite(values)
    if np.any(seen != seen[:1]):
        member = int(np.flatnonzero(np.any(seen != seen[:1], axis=(1, 2, 3, 4)))[0])
        raise InputError(
            f"member {member} of the background lacks values that member 0 has, or has others: "
            "leave it out, or the times at which a member is missing"
        )
    return data[TIME].values, values


def latent_field(
    name: str, given: Any, model: Model, times: np.ndarray
) -> Float[np.ndarray, "time lat lon channel"]:
    """A latent input, standardised, at the times of an analysis; NaN where it is missing.

    Args:
        name: of the input, one of `model.latent_inputs`.
        given: a Dataset (or one variable of it) like that of the training set: on the grid of the
            model, or of stations; or an array that is standardised already.
        model: which says of what the input is made.
        times: of the analysis.

    Raises:
        InputError: what the readers refuse, another name, grid or shape, no time in common, or a
            model that does not say of what its inputs are made.
    """
    check_latent_inputs(model, [name])
    if not isinstance(given, xr.Dataset | xr.DataArray):
        values = np.asarray(given)
        shape = (len(times), *model.grid.shape, len(model.statistics[_field(name)].std))
        if values.shape != shape:
            raise InputError(
                f"the latent input {name!r} is an array of shape {values.shape}, expected (time, "
                f"lat, lon, channel) of {shape}: give it so, or as a Dataset"
            )
        return values
    if name not in model.inputs:
        raise InputError(
            f"the model does not say how its input {name!r} is made of data: give an array that is "
            "standardised as in the training set"
        )
    channels, how = model.inputs[name].channels, model.inputs[name].transform
    # The transform may have added some.
    added = {f"{c.variable}{WET}" for c in channels} if how is not None else set()
    variables = list(dict.fromkeys(c.variable for c in channels if c.variable not in added))
    if isinstance(given, xr.DataArray):
        given = given.to_dataset(name=given.name or variables[0])
    given = _with_channel(_in_order_of_time(given), {COMPONENT})
    source = f"the latent input {name!r}"
    data = on_cells(given, model.grid, times, name=name, variables=variables)
    data = on_grid(data, model.grid.latitude, model.grid.longitude, name=source)
    data = data.isel({TIME: shared_times(data[TIME].values, times, source)}).load()
    if how is not None:
        data = transform(data, how.kind, how.scale, name=source).load()
    values = stack_channels(data.reindex({TIME: times}), channels)
    if model.anamorphosis is not None and name in (STATE, BACKGROUND):
        values = model.anamorphosis.gaussian(values, None, name=source)
    return standardise(values, model.statistics[_field(name)], times)


def _field(name: str) -> str:
    """Whose statistics a field has."""
    return STATE if name == BACKGROUND else name


def on_grid(
    data: xr.Dataset,
    latitude: Sequence[float] | np.ndarray,
    longitude: Sequence[float] | np.ndarray,
    *,
    name: str,
    tolerance: float = SAME,
    wanted: str = "the model's",
) -> xr.Dataset:
    """`data` in the order of these coordinates: each point is found by its values.

    Longitudes are compared on the circle, so that -90 is 270.

    Args:
        data: in the schema.
        latitude: wanted, degrees north.
        longitude: wanted, degrees east.
        name: what to call it in errors.
        tolerance: degrees within which two coordinates are the same.
        wanted: what to call the wanted grid in errors.

    Raises:
        InputError: another grid.
    """
    rows, columns = (
        order_of(data[axis].values, np.asarray(values, np.float64), period, tolerance)
        for axis, values, period in ((LATITUDE, latitude, np.inf), (LONGITUDE, longitude, 360.0))
    )
    if rows is None or columns is None:
        here, there = (
            Grid.of(*axes).extent
            for axes in ((data[LATITUDE].values, data[LONGITUDE].values), (latitude, longitude))
        )
        raise InputError(f"{name} is on another grid ({here}) than {wanted} ({there}): regrid it")
    return data.isel({LATITUDE: rows, LONGITUDE: columns}).assign_coords(
        {LATITUDE: np.asarray(latitude), LONGITUDE: np.asarray(longitude)}
    )


def order_of(
    have: np.ndarray, wanted: np.ndarray, period: float, tolerance: float
) -> np.ndarray | None:
    """Where in `have` each of `wanted` stands; None where the coordinates differ.

    Args:
        have: coordinates, each once.
        wanted: likewise.
        period: after which coordinates repeat; infinity for none.
        tolerance: within which two are the same.
    """
    if have.shape != wanted.shape:
        return None
    apart = np.abs(have[None, :] - wanted[:, None])
    if np.isfinite(period):
        apart = np.abs((apart + period / 2) % period - period / 2)
    nearest = apart.argmin(axis=1)
    return nearest if apart[np.arange(wanted.size), nearest].max() <= tolerance else None


def gridded(data: xr.Dataset, variable: str, *, name: str, own_operator: bool) -> xr.Dataset:
    """Observations on a grid in the schema: `variable` under its library name, perhaps `error`.

    Args:
        data: `variable` on (time, latitude, longitude) and perhaps levels or channels.
        variable: its name in `data`.
        name: of the stream.
        own_operator: whether one further dimension may have any name: it becomes `channel`.

    Raises:
        InputError: as `from_dataset`; a variable `error` of other dimensions.
    """
    source, canonical = f"stream {name!r}", canonical_name(variable)
    extra = {COMPONENT}
    if own_operator:
        known = {alias for aliases in COORDINATE_ALIASES.values() for alias in aliases}
        extra |= {str(d) for d in data[variable].dims if str(d).lower() not in known}
    data = _with_channel(_in_order_of_time(data), extra)
    wanted = {canonical: variable}
    if ERROR in data and variable != ERROR:
        _check_dimensions_of_error(data, variable, source)
        wanted[ERROR] = ERROR
    read = from_dataset(data, variables=wanted, name=source).load()
    if ERROR in wanted:
        timed = any(role_of(d, data.variables.get(d)) == TIME for d in data[ERROR].dims)
        # Errors that do not change with time stay one for all times.
        read[ERROR] = read[ERROR] if timed else read[ERROR].isel({TIME: 0}, drop=True)
    return read


def stations(data: xr.Dataset, variable: str, *, name: str) -> xr.Dataset:
    """Observations at points in the schema: `variable` on (time, station), perhaps `error`.

    Positions are (station), or (time, station) for moving platforms; altitude in m, level in hPa.

    Args:
        data: as `Observations` describes it; where it has a level and an altitude, that is the
            level that counts.
        variable: its name in `data`.
        name: of the stream.

    Raises:
        InputError: as `slams_jax.readers.from_stations`.
    """
    if {LEVEL, ALTITUDE} <= set(data.variables):
        data = data.drop_vars(ALTITUDE)
    canonical = canonical_name(variable)
    # What the library does not know has the range that its own operator gives it.
    plausible = None if canonical in VARIABLES else (-np.inf, np.inf)
    source, data = f"stream {name!r}", _in_order_of_time(data)
    if ERROR in data and variable != ERROR:
        _check_dimensions_of_error(data, variable, source)
    return from_stations(data, variable=variable, plausible=plausible, name=source)


def scale_of(data: xr.Dataset, variable: str, *, name: str) -> float:
    """The factor from the units of `variable` in `data` to the library's, for differences."""
    units = units_of(data[variable])
    return conversion(canonical_name(variable), units, source=f"stream {name!r}")[0]


def level_order(array: xr.DataArray) -> np.ndarray | None:
    """Where the levels of the schema, ascending pressures, stand in `array`; None without any."""
    for dim in array.dims:
        coordinate = array.coords.get(dim)
        if coordinate is not None and role_of(dim, coordinate.variable) == LEVEL:
            return np.argsort(coordinate.values, kind="stable")
    return None


def _in_order_of_time(data: xr.Dataset) -> xr.Dataset:
    """`data` with ascending times, which a Dataset in memory need not have."""
    return data.sortby(TIME) if TIME in data.coords and data[TIME].dims == (TIME,) else data


def _with_channel(data: xr.Dataset, names: set[str]) -> xr.Dataset:
    """`data` with its one dimension among `names` called `channel`."""
    here: list[Hashable] = [d for d in data.dims if str(d) in names and str(d) != CHANNEL]
    return data.rename({here[0]: CHANNEL}) if len(here) == 1 else data


def _check_dimensions_of_error(data: xr.Dataset, variable: str, source: str) -> None:
    """Refuse a variable `error` on dimensions that `variable` does not have."""
    error, array = data[ERROR], data[variable]
    if not set(error.dims) <= set(array.dims):
        raise InputError(
            f"{source}: error has dimensions {tuple(map(str, error.dims))}, which "
            f"{variable!r} {tuple(map(str, array.dims))} does not: give one for each value"
        )
