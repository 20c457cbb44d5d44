import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.errors import InputError
from slams_jax.observe.satellite import SOUNDER_PEAKS, STEFAN_BOLTZMANN, OutgoingLongwave, Sounder
from slams_jax.schema import SLAMS_LEVELS, Channel, channels_of

CHANNELS = channels_of(["temperature"], SLAMS_LEVELS)


def standard_profile(levels) -> np.ndarray:
    """ICAO standard atmosphere up to 20 km, constant above."""
    pressure = np.asarray(levels)
    return np.maximum(216.65, 288.15 * (pressure / 1013.25) ** 0.190263).astype(np.float32)


def states(key=0, levels=SLAMS_LEVELS) -> jax.Array:
    noise = jax.random.normal(jax.random.key(key), (2, 3, 4, len(levels)))
    return jnp.asarray(standard_profile(levels))[None, None, None] + 3.0 * noise


@pytest.mark.parametrize("value", [180.0, 250.0, 320.0])
def test_isothermal_atmosphere(value):
    state = jnp.full((1, 2, 3, len(CHANNELS)), value)
    np.testing.assert_allclose(Sounder.of(CHANNELS)(state), value, rtol=1e-6)
    expected = STEFAN_BOLTZMANN * value**4
    np.testing.assert_allclose(OutgoingLongwave.of(CHANNELS)(state), expected, rtol=1e-6)


def test_weighting_functions_peak_where_they_should():
    levels = np.geomspace(1.0, 1000.0, 120)
    sounder = Sounder.of(channels_of(["temperature"], levels.tolist()))
    weights = np.asarray(sounder.weights)
    assert np.all(weights >= 0)
    # The lowest level also has the surface, which is not part of the weighting function.
    found = levels[weights[:, :-1].argmax(axis=1)]
    np.testing.assert_allclose(found, SOUNDER_PEAKS, rtol=0.06)


def test_sounder_equals_the_integral_of_a_profile_linear_in_log_pressure():
    # T = a + b ln p between the levels and above: the integral of ln p over exp(-(p/p_j)²) is
    # known, ln p_j - γ/2, where neither surface nor top matter.
    levels = np.geomspace(0.05, 1000.0, 80)
    sounder = Sounder.of(channels_of(["temperature"], levels.tolist()), peaks=(20.0, 60.0, 120.0))
    state = jnp.asarray(250.0 + 10.0 * np.log(levels), jnp.float32)[None, None, None]
    expected = 250.0 + 10.0 * (np.log([20.0, 60.0, 120.0]) - np.euler_gamma / 2)
    np.testing.assert_allclose(sounder(state)[0, 0, 0], expected, atol=0.02)


def test_outgoing_longwave_is_realistic_and_follows_the_temperature():
    longwave = OutgoingLongwave.of(CHANNELS)
    standard = jnp.asarray(standard_profile(SLAMS_LEVELS))[None, None, None]
    flux = [float(longwave(standard + shift)[0, 0, 0]) for shift in (-30.0, 0.0, 15.0)]
    # The Earth's mean is 239 W/m²; winter poles have 150, clear subtropics 300.
    assert 150 < flux[0] < 190
    assert 225 < flux[1] < 255
    assert 280 < flux[2] < 330


def test_coarse_levels_agree_with_fine_ones():
    fine_levels = np.geomspace(5.0, 1000.0, 200)
    fine = channels_of(["temperature"], fine_levels.tolist())
    profile = [
        jnp.asarray(standard_profile(p))[None, None, None] for p in (SLAMS_LEVELS, fine_levels)
    ]
    a, b = (Sounder.of(c)(x) for c, x in zip((CHANNELS, fine), profile, strict=True))
    np.testing.assert_allclose(a, b, atol=2.0)
    a, b = (OutgoingLongwave.of(c)(x) for c, x in zip((CHANNELS, fine), profile, strict=True))
    np.testing.assert_allclose(a, b, rtol=0.01)


@pytest.mark.parametrize("kind", [Sounder, OutgoingLongwave])
def test_derivatives(kind):
    operator, state, direction = kind.of(CHANNELS), states(), states(1) - 250.0
    value, tangent = jax.jvp(operator, (state,), (direction,))
    step = 0.05  # of departures of about 30 K
    difference = (operator(state + step * direction) - operator(state - step * direction)) / 2
    np.testing.assert_allclose(tangent, difference / step, rtol=2e-3, atol=2e-3)
    cotangent = jax.random.normal(jax.random.key(2), value.shape)
    (pulled,) = jax.vjp(operator, state)[1](cotangent)
    np.testing.assert_allclose(jnp.vdot(cotangent, tangent), jnp.vdot(pulled, direction), rtol=1e-3)


def test_only_the_temperature_levels_are_read():
    mixed = (Channel("2m_temperature"), *CHANNELS, Channel("geopotential", 500.0))
    state = states()
    odd = jnp.full((*state.shape[:-1], 1), 1e6)
    wide = jnp.concatenate([odd, state, odd], axis=-1)
    for kind in (Sounder, OutgoingLongwave):
        np.testing.assert_array_equal(kind.of(mixed)(wide), kind.of(CHANNELS)(state))


def test_operators_are_pytrees():
    sounder = Sounder.of(CHANNELS)
    assert [leaf.shape for leaf in jax.tree.leaves(sounder)] == [(6, 10)]
    compiled = jax.jit(lambda operator, x: operator(x))
    np.testing.assert_allclose(compiled(sounder, states()), sounder(states()), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Sounder.of(channels_of(["geopotential"], SLAMS_LEVELS)), "geopotential"),
        (lambda: Sounder.of((Channel("2m_temperature"),)), "pressure levels"),
        (lambda: Sounder.of(channels_of(["temperature"], [500.0, 850.0])), "30 hPa"),
        (lambda: Sounder.of(CHANNELS, peaks=(0.0, 100.0)), "peaks"),
        (lambda: OutgoingLongwave.of(channels_of(["temperature"], [100.0, 500.0])), "700 hPa"),
        (lambda: OutgoingLongwave.of(CHANNELS, depth=-1.0), "depth"),
    ],
)
def test_bad_input(call, named):
    with pytest.raises(InputError, match=named):
        call()
