import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from slams_jax.dynamics import Kolmogorov, KolmogorovRun, kolmogorov, nature_run
from slams_jax.errors import InputError, RunError
from slams_jax.grid import Grid

SMALL = Kolmogorov(points=32, viscosity=0.02, interval=0.01, substeps=4)


def waves(points, *, k_x, k_y, phase=0.0):
    y, x = np.meshgrid(*[2 * np.pi * np.arange(points) / points] * 2, indexing="ij")
    return np.cos(k_x * x + k_y * y + phase)


def smooth_vorticity(points):
    return (
        waves(points, k_x=1, k_y=2)
        + 0.7 * waves(points, k_x=-3, k_y=1, phase=0.4)
        + 0.5 * waves(points, k_x=2, k_y=3, phase=1.1)
    )


def published_tendency(system, vorticity):
    """In double precision, by Fourier derivatives."""
    k = np.fft.fftfreq(system.points, 1.0 / system.points)
    k_y, k_x = k[:, None], k[None, :]
    square = k_x**2 + k_y**2
    spectrum = np.fft.fft2(vorticity)
    stream = -spectrum / np.where(square > 0, square, np.inf)
    back = lambda transformed: np.fft.ifft2(transformed).real
    u, v = back(-1j * k_y * stream), back(1j * k_x * stream)
    advection = u * back(1j * k_x * spectrum) + v * back(1j * k_y * spectrum)
    y = 2 * np.pi * np.arange(system.points)[:, None] / system.points
    force = -system.amplitude * system.wavenumber * np.cos(system.wavenumber * y)
    return force - advection - system.viscosity * back(square * spectrum) - system.drag * vorticity


def test_velocity_has_the_vorticity_and_no_divergence():
    vorticity = smooth_vorticity(32)
    found = np.asarray(kolmogorov.velocity(jnp.asarray(vorticity, jnp.float32)), np.float64)
    k = np.fft.fftfreq(32, 1.0 / 32)
    along = lambda field, k: np.fft.ifft2(1j * k * np.fft.fft2(field)).real
    u, v = found[..., 0], found[..., 1]
    np.testing.assert_allclose(along(v, k[None]) - along(u, k[:, None]), vorticity, atol=1e-5)
    np.testing.assert_allclose(along(u, k[None]) + along(v, k[:, None]), 0.0, atol=1e-5)


def test_the_vorticity_is_that_of_the_velocity():
    vorticity = jnp.asarray(smooth_vorticity(32), jnp.float32)
    found = kolmogorov.vorticity(kolmogorov.velocity(vorticity))
    np.testing.assert_allclose(found, vorticity, atol=1e-5)


def test_a_refined_field_has_the_means_that_it_is_made_of():
    vorticity = jnp.asarray(smooth_vorticity(64), jnp.float32)
    coarse = kolmogorov.coarsened(kolmogorov.velocity(jnp.stack([vorticity, -vorticity])), 16)
    found = kolmogorov.refined(coarse, 64)
    # All of its scales are those of the coarse grid.
    np.testing.assert_allclose(found[0], vorticity, atol=1e-4)
    np.testing.assert_allclose(
        kolmogorov.coarsened(kolmogorov.velocity(found), 16), coarse, atol=1e-5
    )


@pytest.mark.slow
def test_tendencies_are_the_published_ones():
    pytest.importorskip("exponax")
    start = smooth_vorticity(32)
    end = kolmogorov.trajectory(SMALL, jnp.asarray(start, jnp.float32), length=1)[0]
    found = (np.asarray(end, np.float64) - start) / SMALL.interval
    middle = 0.5 * (start + np.asarray(end, np.float64))
    np.testing.assert_allclose(found, published_tendency(SMALL, middle), atol=2e-3)


@pytest.mark.slow
def test_states_of_several_flows_advance_as_one_by_one():
    pytest.importorskip("exponax")
    keys = jax.random.split(jax.random.key(0), 2)
    starts = jnp.stack([kolmogorov.random_vorticity(SMALL, key) for key in keys])
    together = kolmogorov.trajectory(SMALL, starts, length=3)
    assert together.shape == (3, 2, 32, 32)
    alone = kolmogorov.trajectory(SMALL, starts[1], length=3)
    np.testing.assert_allclose(together[:, 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_flow_settles_to_turbulence_of_unit_speed():
    """Kochkov et al. (2021) have velocities of order 1 with this force and drag."""
    pytest.importorskip("exponax")
    system = Kolmogorov(points=64, viscosity=5e-3, interval=1.0, substeps=120)
    start = kolmogorov.random_vorticity(system, jax.random.key(1))
    run = jax.jit(lambda w: kolmogorov.trajectory(system, w, length=40))(start)[20:]
    flow = kolmogorov.velocity(run)
    speed = float(jnp.sqrt(jnp.mean(jnp.sum(flow**2, axis=-1))))
    assert 0.5 < speed < 3.0
    # Chaos has broken the stripes of the force up: most of the energy is not in the mean along x.
    stripes = jnp.mean(jnp.mean(flow, axis=2) ** 2)
    assert float(stripes) < 0.6 * float(jnp.mean(flow**2))


def test_noise_to_start_from_has_unit_speed():
    vorticity = kolmogorov.random_vorticity(SMALL, jax.random.key(3))
    square = jnp.mean(jnp.sum(kolmogorov.velocity(vorticity) ** 2, axis=-1))
    np.testing.assert_allclose(square, 1.0, rtol=1e-4)


def test_coarsening_takes_means_over_squares():
    field = jnp.arange(32.0).reshape(4, 4, 2)
    found = kolmogorov.coarsened(field, 2)
    assert found.shape == (2, 2, 2)
    np.testing.assert_allclose(found[1, 0], jnp.mean(field[2:, :2], axis=(0, 1)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"points": 33}, "points of a Kolmogorov flow must be even, got 33"),
        ({"viscosity": 0.0}, "viscosity of a Kolmogorov flow must be a positive number"),
        ({"substeps": 0}, "substeps of a Kolmogorov flow must be a positive number, got 0"),
        ({"drag": -0.1}, "drag of a Kolmogorov flow must not be negative"),
    ],
)
def test_bad_parameters(change, words):
    with pytest.raises(InputError, match=words):
        Kolmogorov(**change)


def test_bad_states():
    with pytest.raises(InputError, match=r"32 x 32 points, the vorticity \(16, 16\)"):
        kolmogorov.trajectory(SMALL, jnp.zeros((16, 16)), length=1)
    with pytest.raises(InputError, match="length must be at least 1, got 0"):
        kolmogorov.trajectory(SMALL, jnp.zeros((32, 32)), length=0)
    with pytest.raises(InputError, match="32 points cannot be averaged to 5"):
        kolmogorov.coarsened(jnp.zeros((32, 32, 2)), 5)
    with pytest.raises(InputError, match="16 points cannot be refined to 40: choose a multiple"):
        kolmogorov.refined(jnp.zeros((16, 16, 2)), 40)
    with pytest.raises(InputError, match="128 points cannot be averaged to 48"):
        KolmogorovRun(points=48)
    with pytest.raises(InputError, match="days"):
        KolmogorovRun(days=1)


def test_without_its_solver_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "exponax.stepper", None)
    system = Kolmogorov(points=16)
    with pytest.raises(InputError, match=r"pip install 'slams-jax\[kolmogorov\]'"):
        kolmogorov.trajectory(system, jnp.zeros((16, 16)), length=1)


@pytest.mark.slow
def test_a_nature_run_is_the_flow_on_a_coarser_grid(tmp_path):
    pytest.importorskip("exponax")
    run = KolmogorovRun(seed=3, days=5, spin_up=2, points=16, model=SMALL, cache=str(tmp_path))
    with xr.open_dataset(nature_run(run) / "state.nc") as state:
        found = state["velocity"].transpose("time", "latitude", "longitude", "component").values
        grid = Grid.of(state["latitude"].values, state["longitude"].values)
    start = kolmogorov.random_vorticity(SMALL, jax.random.key(3))
    states = kolmogorov.trajectory(SMALL, start, length=7)[2:]
    expected = kolmogorov.coarsened(kolmogorov.velocity(states), 16)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # All cells weigh the same, and only the columns know that they are periodic.
    np.testing.assert_allclose(grid.area_weights(), 1.0, atol=1e-4)
    assert grid.periodic


@pytest.mark.slow
def test_a_flow_that_blows_up_ends_with_what_to_change(tmp_path):
    pytest.importorskip("exponax")
    wild = dataclasses.replace(SMALL, interval=40.0, substeps=2, amplitude=50.0)
    run = KolmogorovRun(days=60, points=16, model=wild, cache=str(tmp_path))
    with pytest.raises(RunError, match=r"unstable by interval 50: raise nature\.model\.substeps"):
        nature_run(run)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
