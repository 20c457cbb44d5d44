r"""The modes that Gaussian statistics are diagonal in.

On a grid that is periodic in longitude, covariances are taken as homogeneous along latitude
circles, so that zonal wavenumbers are independent of one another: each has complex EOFs over
latitude and channel. On other grids there is one block, of real EOFs over the whole frame.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from slams_jax.products import product

# Of each part: (block, mode, time). The first part holds the coefficients of the EOFs; the second
# one, absent where the EOFs are complete, what is orthogonal to them, as it stands in each block.
Coefficients = tuple[Array, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Modes:
    """Orthonormal modes of frames (lat, lon, channel).

    Attributes:
        vectors: the EOFs of each block; `dim` is lat times channel for a zonal wavenumber (block)
            of a periodic grid, else the frame, in one block.
        shape: of a frame.
        periodic: whether blocks are zonal wavenumbers 0, 1, ..., lon / 2.
    """

    vectors: Complex[Array, "block dim mode"] | Float[Array, "block dim mode"]
    shape: tuple[int, int, int] = dataclasses.field(metadata={"static": True})
    periodic: bool = dataclasses.field(metadata={"static": True})

    @property
    def complete(self) -> bool:
        """Whether the EOFs span all frames."""
        return self.vectors.shape[1] == self.vectors.shape[2]

    def coefficients(self, x: Float[Array, "time lat lon channel"]) -> Coefficients:
        """The coefficients of frames: white noise of unit variance has such coefficients."""
        blocks = self._blocks(x)
        leading = product("bdm,bdt->bmt", self.vectors.conj(), blocks)
        if self.complete:
            return (leading,)
        return leading, blocks - product("bdm,bmt->bdt", self.vectors, leading)

    def field(self, coefficients: Coefficients) -> Float[Array, "time lat lon channel"]:
        """The frames of coefficients; inverts `coefficients`."""
        leading, *rest = coefficients
        blocks = product("bdm,bmt->bdt", self.vectors, leading)
        for complement in rest:
            blocks = blocks + complement
        return self._fields(blocks)

    def vector(self, coefficients: Coefficients) -> Float[Array, " value"]:
        """Coefficients as one real vector, whose scalar products are those of the fields."""
        halves = lambda c: jnp.stack([c.real, c.imag]) if self.periodic else c[None]
        return jnp.concatenate([(self._root * halves(c)).ravel() for c in coefficients])

    def of_vector(self, vector: Float[Array, " value"]) -> Coefficients:
        """Inverts `vector`."""
        time = vector.size // sum(math.prod(shape) for shape in self._shapes(1))
        shapes, parts = self._shapes(time), []
        ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
        for flat, shape in zip(jnp.split(vector, ends), shapes, strict=True):
            halved = flat.reshape(shape) / self._root
            parts.append(jax.lax.complex(*halved) if self.periodic else halved[0])
        return tuple(parts)

    def factors(self, factors: tuple[Array, ...], time: int) -> Float[Array, " value"]:
        """Real factors of coefficients, which broadcast, as factors of their `vector`."""
        shapes = self._shapes(time)
        wide = [jnp.broadcast_to(f[None], s) for f, s in zip(factors, shapes, strict=True)]
        return jnp.concatenate([f.ravel() for f in wide])

    def mean_variance(self, variances: Sequence[Array]) -> Float[Array, " time"]:
        """Mean variance of the values of a frame, of coefficients' (block, mode, time)."""
        _, size, rank = self.vectors.shape
        weight = jnp.asarray(self._multiplicity / math.prod(self.shape), jnp.float32)
        counts = (rank, size - rank)  # one mode may stand for all of a part
        means = (n * jnp.mean(v, axis=1) for n, v in zip(counts, variances, strict=False))
        return jnp.sum(weight[:, None] * sum(means), axis=0)

    @property
    def _multiplicity(self) -> Float[np.ndarray, " block"]:
        """How many coefficients of a field one of each block stands for: its conjugate too."""
        wave = np.arange(len(self.vectors))
        return 1.0 + (self.periodic & (wave > 0) & (2 * wave != self.shape[1]))

    @property
    def _root(self) -> Float[Array, "1 block 1 1"]:
        """Of the multiplicity: the factor of coefficients in their `vector`."""
        return jnp.asarray(np.sqrt(self._multiplicity), jnp.float32)[None, :, None, None]

    def _shapes(self, time: int) -> list[tuple[int, int, int, int]]:
        """(real and imaginary half, block, mode, time) of each part of a `vector`."""
        blocks, size, rank = self.vectors.shape
        counts = (rank,) if self.complete else (rank, size)
        return [(1 + self.periodic, blocks, count, time) for count in counts]

    def _blocks(self, x: Array) -> Array:
        """(block, dim, time); real blocks where the grid is not periodic."""
        time, lat, _, channel = x.shape
        if not self.periodic:
            return x.reshape(time, -1).T[None]
        waves = jnp.fft.rfft(x, axis=2, norm="ortho")
        return waves.transpose(2, 1, 3, 0).reshape(-1, lat * channel, time)

    def _fields(self, blocks: Array) -> Array:
        lat, lon, channel = self.shape
        if not self.periodic:
            return blocks[0].T.reshape(-1, lat, lon, channel)
        waves = blocks.reshape(blocks.shape[0], lat, channel, -1).transpose(3, 1, 0, 2)
        return jnp.fft.irfft(waves, lon, axis=2, norm="ortho")


def over_time(matrices: tuple[Array, ...], coefficients: Coefficients) -> Coefficients:
    """Apply a matrix (block, mode, time, time) to the time series of each mode.

    A part whose modes share one matrix has one in place of its number of modes.
    """
    return tuple(
        product("bts,bms->bmt", m[:, 0], c)
        if m.shape[1] == 1 and c.shape[1] != 1
        else product("bmts,bms->bmt", m, c)
        for m, c in zip(matrices, coefficients, strict=True)
    )


def scaled(coefficients: Coefficients, factors: tuple[Array, ...]) -> Coefficients:
    """The product with real factors that broadcast."""
    return tuple(
        c * jnp.broadcast_to(f, c.shape).astype(c.dtype)
        for c, f in zip(coefficients, factors, strict=True)
    )


def to_blocks(frames: np.ndarray, periodic: bool) -> np.ndarray:
    """As `Modes` has them, on the host and in double precision: (block, time, dim)."""
    time, lat, _, channel = frames.shape
    if not periodic:
        return frames.reshape(1, time, -1).astype(np.float64)
    waves = np.fft.rfft(frames.astype(np.float64), axis=2, norm="ortho")
    return waves.transpose(2, 0, 1, 3).reshape(-1, time, lat * channel)
