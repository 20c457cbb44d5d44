"""A variable of one or several files as one array that is read only where it is indexed."""

import hashlib
import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from slams_jax.errors import InputError, RunError, first_line
from slams_jax.readers.units import check_errors, check_plausible, to_float32
from slams_jax.schema import ERROR


class Piece(NamedTuple):
    """One file's part of a variable."""

    source: str  # named in errors
    variable: xr.Variable  # lazily indexed; its dimensions have the names of the result
    positions: Mapping[str, np.ndarray]  # dimension -> indices into the file, in result order
    scale: float  # library units = scale * file units + offset
    offset: float


def _runs(indices: np.ndarray, chunk: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Split `indices` at gaps wider than a chunk of the file, which need not be read."""
    edges = [0, *(np.flatnonzero(np.abs(np.diff(indices)) > max(2, chunk)) + 1), indices.size]
    for first, last in itertools.pairwise(edges):
        yield slice(first, last), indices[first:last]


class LazyArray(BackendArray):
    """A float32 array for xarray that computes only the block that is indexed."""

    shape: tuple[int, ...]
    dtype = np.dtype(np.float32)

    def block(self, indices: Sequence[np.ndarray]) -> np.ndarray:
        """The values at the outer product of one index vector for each dimension."""
        raise NotImplementedError

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        indices = [np.arange(n)[k] for n, k in zip(self.shape, key, strict=True)]
        result = self.block([np.atleast_1d(i) for i in indices])
        return result.squeeze(axis=tuple(a for a, i in enumerate(indices) if i.ndim == 0))


class LazyField(LazyArray):
    """Pieces joined along dimension `along`; float32, in the library's order and units.

    Values that cannot be in these units are refused when they are read.

    Attributes:
        shape, dtype: of the whole.
        dims: names of the dimensions of the result.
        name: library name of the variable.
    """

    def __init__(self, pieces: Sequence[Piece], dims: tuple[str, ...], along: str, name: str):
        self.pieces = tuple(pieces)
        self.name = name
        self.dims = dims
        self.along = along
        ends = np.cumsum([p.positions[along].size for p in pieces])
        self._starts = np.concatenate([[0], ends[:-1]])
        self.shape = tuple(
            int(ends[-1]) if d == along else pieces[0].positions[d].size for d in dims
        )

    def block(self, indices: Sequence[np.ndarray]) -> np.ndarray:
        """The values at the outer product of one index vector for each dimension."""
        flat = dict(zip(self.dims, indices, strict=True))
        result = np.empty([i.size for i in flat.values()], dtype=np.float32)
        axis = self.dims.index(self.along)
        owner = np.searchsorted(self._starts, flat[self.along], side="right") - 1
        for number in np.unique(owner) if result.size else ():
            where = np.flatnonzero(owner == number)
            local = flat[self.along][where] - self._starts[number]
            piece = self.pieces[number]
            for run, chosen in _runs(local, _chunk_size(piece.variable, self.along)):
                block = self._read_piece(piece, {**flat, self.along: chosen})
                result[(slice(None),) * axis + (where[run],)] = block
        return result

    def _read_piece(self, piece: Piece, wanted: Mapping[str, np.ndarray]) -> np.ndarray:
        """The values of one file at `wanted`, in the order and units of the result."""
        box, pick = {}, []
        for dim in self.dims:
            indices = piece.positions[dim][wanted[dim]]
            low = 0
            if dim in piece.variable.dims:
                low = int(indices.min())
                box[dim] = slice(low, int(indices.max()) + 1)
            pick.append(indices - low)
        values = _read_box(piece, box)
        # Transposed after reading: a lazy transpose would read point by point.
        present = [d for d in self.dims if d in piece.variable.dims]
        values = values.transpose([piece.variable.dims.index(d) for d in present])
        absent = [a for a, d in enumerate(self.dims) if d not in piece.variable.dims]
        values = np.expand_dims(values, absent)
        result = to_float32(values[np.ix_(*pick)], piece.scale, piece.offset)
        if self.name == ERROR:
            check_errors(result, source=piece.source)
        else:
            check_plausible(self.name, result, source=piece.source.removesuffix(f": {self.name}"))
        return result


def _read_box(piece: Piece, box: Mapping[str, slice]) -> np.ndarray:
    """A contiguous block of a file, in its own order and units."""
    try:
        values = piece.variable.isel(box).values
    except (InputError, RunError):
        raise
    except (OSError, RuntimeError, ValueError, IndexError, KeyError, EOFError) as error:
        raise InputError(
            f"{piece.source}: cannot be read ({first_line(error)}): download or write it again"
        ) from error
    if np.issubdtype(values.dtype, np.floating) and np.isinf(values).any():
        raise InputError(
            f"{piece.source}: holds infinite values: write missing values as NaN, or declare a "
            "fill value"
        )
    return values


class FirstPresent(BackendArray):
    """Two variables as one: the values of the first, and of the second where it has none."""

    def __init__(self, first: xr.Variable, second: xr.Variable, source: str):
        self.first, self.second, self.source = first, second, source
        self.shape, self.dtype = first.shape, first.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        first, second = (np.asarray(v[key].values) for v in (self.first, self.second))
        both = ~(np.isnan(first) | np.isnan(second))
        if not np.array_equal(first[both], second[both]):
            raise InputError(
                f"{self.source}: both versions have values, and they differ: choose one, such as "
                f"with dataset.isel(expver=0), and write it again"
            )
        return np.where(np.isnan(first), second, first)


def _chunk_size(variable: xr.Variable, dim: str) -> int:
    """How many indices along `dim` the file stores, and so reads, together."""
    chunks = variable.encoding.get("chunksizes") or variable.encoding.get("chunks")
    if dim not in variable.dims or not chunks or len(chunks) != variable.ndim:
        return 1
    return int(chunks[variable.dims.index(dim)])


def lazy_variable(array: BackendArray, dims: Sequence[str], attrs: Mapping[str, Any]):
    """An xarray Variable that reads `array` only when its values are asked for."""
    return xr.Variable(tuple(dims), indexing.LazilyIndexedArray(array), dict(attrs))


def source_digest(dataset: xr.Dataset) -> str | None:
    """The digest of the files that a Dataset is read from, as `open_dataset` notes it.

    None where the values are in memory or come out of a task graph: xarray keeps attributes
    through arithmetic, so that the digest would no longer say what the values are.
    """
    untouched = all(
        not array.variable._in_memory and array.chunks is None
        for array in dataset.data_vars.values()
    )
    return dataset.attrs.get("source_digest") if untouched else None


def computed(
    dataset: xr.Dataset,
    array_of: Callable[[xr.DataArray], LazyArray],
    operation: str,
    axes: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """`dataset` with each variable replaced by a lazy function of it.

    Args:
        dataset: input of the computation, read lazily.
        array_of: from a variable to the array of the result, on the same dimensions.
        operation: name of the computation with all its options; part of the result's
            `source_digest`.
        axes: coordinates that change, by dimension.
        attrs: attributes of the variables that change.
    """
    coordinates: dict[Hashable, Any] = {d: dataset[d] for d in dataset.dims if d in dataset.coords}
    for dim, values in (axes or {}).items():
        coordinates[dim] = xr.Variable((dim,), values, dataset[dim].attrs)
    variables = {
        name: lazy_variable(
            array_of(array), [str(d) for d in array.dims], {**array.attrs, **(attrs or {})}
        )
        for name, array in dataset.data_vars.items()
    }
    result = xr.Dataset(variables, coordinates, dataset.attrs)
    result.attrs.pop("source_digest", None)
    if (source := source_digest(dataset)) is not None:
        chained = hashlib.sha256(f"{source} {operation}".encode()).hexdigest()
        result.attrs["source_digest"] = chained[:16]
    result.set_close(dataset.close)
    return result


def first_axis_blocks(indices: np.ndarray, bytes_each: int, limit: int = 2**26) -> Iterator[slice]:
    """Slices of `indices` whose items together hold no more than `limit` bytes, one at least."""
    step = max(1, limit // max(1, bytes_each))
    for start in range(0, indices.size, step):
        yield slice(start, start + step)
