import numpy as np
import pytest

from slams_jax.errors import InputError
from slams_jax.grid import Grid

GLOBAL = Grid.of(np.linspace(-87.5, 87.5, 36), np.arange(0, 360, 5.0))
# name: latitudes, longitudes, periodic, padding
KINDS = {
    "cell centres": (np.linspace(-88.5, 88.5, 60), np.arange(0, 360, 3.0), True, "sphere"),
    "with poles": (np.linspace(-90, 90, 61), np.arange(0, 360, 3.0), True, "sphere"),
    "gaussian": (np.polynomial.legendre.leggauss(32)[0], np.arange(64) * 5.625, True, "sphere"),
    "from the date line": (np.linspace(-87, 87, 30), np.arange(-180, 180, 6.0), True, "sphere"),
    "odd meridians": (np.linspace(-87, 87, 30), np.arange(5) * 72.0, True, "channel"),
    "tropics": (np.linspace(-30, 30, 21), np.arange(0, 360, 3.0), True, "channel"),
    "hemisphere": (np.linspace(0, 87, 30), np.arange(0, 360, 3.0), True, "channel"),
    "region": (np.linspace(35, 45, 6), np.linspace(-10, 5, 9), False, "edge"),
    "almost a circle": (np.linspace(-87, 87, 30), np.arange(0, 354, 6.0), False, "edge"),
    "one point": ([40.0], [5.0], False, "edge"),
}


def grid_of(kind):
    latitude, longitude, *_ = KINDS[kind]
    if kind == "gaussian":
        latitude = np.rad2deg(np.arcsin(latitude))
    return Grid.of(latitude, longitude)


@pytest.mark.parametrize("kind", KINDS)
def test_periodic_and_padding(kind):
    grid = grid_of(kind)
    assert (grid.periodic, grid.padding) == KINDS[kind][2:]
    assert grid.shape == (len(grid.latitude), len(grid.longitude))


@pytest.mark.parametrize("kind", KINDS)
def test_area_weights_have_mean_one_and_are_positive(kind):
    weights = grid_of(kind).area_weights()
    assert weights.dtype == np.float32
    assert weights.min() > 0
    np.testing.assert_allclose(weights.mean(), 1.0, rtol=1e-5)


def test_area_weights_integrate_over_the_sphere():
    """Over the sphere sin^2(latitude) has the mean 1/3, cos(latitude) pi/4."""
    lat = np.deg2rad(GLOBAL.latitude)[:, None]
    weights = GLOBAL.area_weights()
    np.testing.assert_allclose((weights * np.sin(lat) ** 2).mean(), 1 / 3, rtol=2e-3)
    np.testing.assert_allclose((weights * np.cos(lat)).mean(), np.pi / 4, rtol=2e-3)


def test_area_weights_of_a_region_follow_the_cosine_of_latitude():
    grid = grid_of("region")
    expected = np.cos(np.deg2rad(grid.latitude))
    weights = grid.area_weights()
    np.testing.assert_allclose(weights[:, 0] / weights[0, 0], expected / expected[0], rtol=1e-3)
    assert np.ptp(weights, axis=1).max() == 0


def test_a_hemisphere_is_not_weighted_as_a_sphere():
    """The row on the equator is one row wide, not a hemisphere."""
    weights = grid_of("hemisphere").area_weights()[:, 0]
    assert 0.9 < weights[0] / weights[1] < 1.1


def test_grids_of_equal_coordinates_are_equal_and_hash_alike():
    one = Grid.of([10.0, 20.0], [0.1, 0.2])
    two = Grid.of(np.float32([10.0, 20.0]), np.float32([0.1, 0.2]))
    assert one == two
    assert hash(one) == hash(two)


@pytest.mark.parametrize(
    ("latitude", "longitude", "message"),
    [
        ([20.0, 10.0], [0.0, 1.0], "latitude must ascend strictly"),
        ([10.0, 10.0], [0.0, 1.0], "latitude must ascend strictly"),
        ([10.0, np.nan], [0.0, 1.0], "latitude must ascend strictly"),
        ([10.0, 91.0], [0.0, 1.0], r"latitude must lie in \[-90, 90\] degrees, got 10 to 91"),
        ([10.0, 20.0], [0.0, 361.0], r"longitude must lie in \[-180, 360\]"),
        ([10.0, 20.0], [0.0, 120.0, 240.0, 360.0], "drop the repeated meridian"),
        ([], [0.0], "latitude must be a non-empty list"),
    ],
)
def test_errors(latitude, longitude, message):
    with pytest.raises(InputError, match=message):
        Grid.of(latitude, longitude)
