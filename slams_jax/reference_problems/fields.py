r"""Reference problem (a): a Gaussian random field on the sphere, 32 x 64 points.

An isotropic field of unit variance, with the power spectrum C_l ~ (1 + l (l + 1) / l_0^2)^-p up
to degree 21 (the truncation of T21) plus white noise for unresolved scales. Four networks observe
it: block means, every fourth point, scattered points, and swaths of the full field. Posterior mean
and covariance are in closed form, in double precision.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Bool, Float

from slams_jax.aliases import ObservationOperator
from slams_jax.diffusion import CosineSchedule
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.observe import Coarsen, Diagonal, Identity, Points, Stride, make_stream
from slams_jax.reference_problems.cases import Case, Problem
from slams_jax.reference_problems.exact import Exact
from slams_jax.reference_problems.priors import GaussianDenoiser
from slams_jax.schema import Channel

Network = Literal["coarse", "strided", "scattered", "masked"]
GRID = Grid.of(np.linspace(-90 + 2.8125, 90 - 2.8125, 32), np.arange(64) * 5.625)
# Standard deviations of the errors; that of the field is one.
ERRORS = {"coarse": 0.2, "strided": 0.3, "scattered": 0.3, "masked": 0.5}


def field_cases(
    networks: Sequence[Network] = get_args(Network),
    *,
    degree: int = 21,
    length: float = 4.0,
    exponent: float = 2.0,
    white: float = 0.01,
    schedule: CosineSchedule = CosineSchedule(),
    seed: int = 0,
) -> list[Case]:
    """Gaussian random fields, one case for each observing network.

    Args:
        networks: observing networks to include.
        degree: highest degree of the spherical harmonics.
        length: l_0, the degree at which the spectrum begins to fall.
        exponent: p.
        white: share of the variance in white noise.
        schedule: noise schedule.
        seed: of the true field and of the observation errors.

    Raises:
        InputError: an unknown network.
    """
    for name in networks:
        if name not in get_args(Network):
            raise InputError(f"unknown network {name!r}: choose from {get_args(Network)}")
    field = RandomField.of(degree, length, exponent, white, schedule)
    rng = np.random.default_rng(seed)
    truth = field.draw(rng)
    return [_case(name, field, truth, rng) for name in networks]


@dataclasses.dataclass(frozen=True)
class RandomField:
    """An isotropic Gaussian field of unit variance on `GRID`.

    Attributes:
        prior: its denoiser.
        modes: spherical harmonics times their standard deviations.
        white: variance of the noise at each point.
    """

    prior: GaussianDenoiser
    modes: Float[np.ndarray, "point mode"]
    white: float

    @classmethod
    def of(
        cls,
        degree: int = 21,
        length: float = 4.0,
        exponent: float = 2.0,
        white: float = 0.01,
        schedule: CosineSchedule = CosineSchedule(),
    ) -> "RandomField":
        """The field; arguments as for `field_cases`."""
        modes = np.sqrt(1 - white) * _modes(degree, length, exponent)
        vectors, roots, _ = np.linalg.svd(modes, full_matrices=False)
        single = lambda a: jnp.asarray(a, jnp.float32)
        prior = GaussianDenoiser(single(vectors), single(roots**2 + white), single(white), schedule)
        return cls(prior, modes, white)

    @property
    def covariance(self) -> Float[np.ndarray, "point point"]:
        """Of the points."""
        return self.modes @ self.modes.T + self.white * np.eye(len(self.modes))

    def draw(self, rng: np.random.Generator) -> Float[np.ndarray, " point"]:
        """One field."""
        smooth = self.modes @ rng.standard_normal(self.modes.shape[1])
        return smooth + np.sqrt(self.white) * rng.standard_normal(len(smooth))


def matrix_of(
    operator: ObservationOperator,
) -> tuple[Float[np.ndarray, "obs point"], tuple[int, ...]]:
    """The matrix of a linear operator on `GRID`, and the shape of what it observes at one time."""
    size = GRID.shape[0] * GRID.shape[1]
    # Operators treat all times alike: unit vectors in place of times give the transposed matrix.
    columns = np.asarray(operator(jnp.eye(size).reshape(size, *GRID.shape, 1)), np.float64)
    return columns.reshape(size, -1).T, columns.shape[1:]


def _modes(degree: int, length: float, exponent: float) -> Float[np.ndarray, "point mode"]:
    """Real spherical harmonics times their standard deviations; rows have unit length."""
    lat, lon = np.meshgrid(np.deg2rad(GRID.latitude), np.deg2rad(GRID.longitude), indexing="ij")
    theta, phi = np.pi / 2 - lat.ravel(), lon.ravel()
    columns = []
    for order in range(degree + 1):
        power = (1 + order * (order + 1) / length**2) ** -exponent
        for m in range(order + 1):
            wave = np.sqrt(power) * scipy.special.sph_harm_y(order, m, theta, phi)
            columns += [wave.real] if m == 0 else [np.sqrt(2) * wave.real, np.sqrt(2) * wave.imag]
    modes = np.stack(columns, axis=-1)
    # The addition theorem gives every point the same variance.
    return modes / np.sqrt((modes**2).sum(axis=1, keepdims=True))


def _observe(
    network: Network, rng: np.random.Generator
) -> tuple[ObservationOperator, Bool[np.ndarray, "1 lat lon 1"] | None]:
    """The observation operator, and a mask of what is observed (None: everything)."""
    if network == "coarse":
        return Coarsen(4), None
    if network == "strided":
        return Stride(4, 1), None
    if network == "scattered":
        latitude = np.rad2deg(np.arcsin(rng.uniform(-1, 1, 150)))
        longitude = rng.uniform(0, 360, 150)
        channels = (Channel("temperature", None),)
        return Points.at(GRID, channels, latitude, longitude, None), None
    lat, lon = np.meshgrid(GRID.latitude, GRID.longitude, indexing="ij")
    swaths = np.mod(lon + 0.5 * lat, 120.0) < 40.0  # three, crossing the equator at an angle
    return Identity(), swaths[None, :, :, None]


def _case(
    network: Network,
    field: RandomField,
    truth: Float[np.ndarray, " size"],
    rng: np.random.Generator,
) -> Case:
    operator, mask = _observe(network, rng)
    prior, covariance = field.prior, field.covariance
    matrix, shape = matrix_of(operator)
    values = matrix @ truth + ERRORS[network] * rng.standard_normal(len(matrix))
    kept = np.ones(len(values), bool) if mask is None else mask.ravel()
    stream = make_stream(
        network,
        np.where(kept, values, np.nan).reshape(1, *shape),
        operator,
        Diagonal(jnp.full((), ERRORS[network] ** 2, jnp.float32)),
    )
    matrix, values = matrix[kept], values[kept]
    total = matrix @ covariance @ matrix.T + ERRORS[network] ** 2 * np.eye(len(values))
    gain = np.linalg.solve(total, matrix @ covariance).T
    posterior = covariance - gain @ (matrix @ covariance)
    # Large patterns measure the covariances between points; single points, the marginals.
    patterns = np.asarray(prior.vectors, np.float64)[:, :32].T
    points = np.eye(len(truth))[rng.choice(len(truth), 32, replace=False)]
    directions = np.concatenate([patterns, points])
    return Case(
        f"field {network}",
        Problem(prior, (stream,), prior, prior.schedule, (1, *GRID.shape, 1)),
        Exact.gaussian(gain @ values, posterior, directions),
    )
