import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from slams_jax.assimilation import analysis as analysis_module
from slams_jax.assimilation import posterior
from slams_jax.assimilation.analysis import ComputeConfig, assimilate
from slams_jax.assimilation.observations import Observations, to_stream
from slams_jax.assimilation.posterior import compiled_analysis
from slams_jax.assimilation.streams import latent_stream
from slams_jax.data import climatology
from slams_jax.data.channels import stack_channels, unstack_channels
from slams_jax.diffusion import SamplerConfig, sample
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.errors import InputError, RunError
from slams_jax.models import autoencoder, score
from slams_jax.models.autoencoder import AutoencoderConfig
from slams_jax.models.model import decode, trajectory_prior
from slams_jax.observe.satellite import OutgoingLongwave, Sounder
from support.small_model import (
    BACKGROUND_ERROR,
    BIAS,
    CHANNELS,
    GRID,
    LEVELS,
    STD,
    times,
    tiny_model,
    white_prior,
)

TIMES = times()
FEW = SamplerConfig(steps=6)
FINE = SamplerConfig(steps=64)  # near the limit of the solver


@pytest.fixture(scope="module")
def exact_model():
    """The prior is white noise about the climatology, exactly."""
    return tiny_model(latent=False, network=0.0)


@pytest.fixture(scope="module")
def guided(state_model):
    """Three members of an analysis from a background."""
    background = as_dataset(some_truth(state_model) + BIAS)
    return assimilate(state_model, background, [], members=3, key=jax.random.key(3), sampler=FEW)


def climate_of(model, at=TIMES):
    return climatology(model.statistics["state"], at)


def as_dataset(states, at=TIMES):
    """States (time, lat, lon, channel) as a Dataset without members."""
    return unstack_channels(
        np.asarray(states, np.float32)[None], CHANNELS, at, GRID.latitude, GRID.longitude
    ).isel(member=0)


def members_of(analysis):
    """(member, time, lat, lon, channel)."""
    return np.moveaxis(analysis["temperature"].values, 2, -1)


def some_truth(model, seed=3):
    rng = np.random.default_rng(seed)
    anomaly = STD * rng.standard_normal((len(TIMES), *GRID.shape, 3))
    return (climate_of(model) + anomaly).astype(np.float32)


def every_kind(truth):
    """Streams of every kind, of errors small enough to be felt, with gaps."""
    rng = np.random.default_rng(4)
    coarse = truth.reshape(5, 3, 2, 4, 2, 3).mean(axis=(2, 4))
    lat, lon = (np.asarray(axis) for axis in (GRID.latitude, GRID.longitude))
    masked = np.where(rng.random(truth.shape) < 0.5, truth, np.nan)
    sparse = unstack_channels(truth[None, :, ::3, ::3], CHANNELS, TIMES, lat[::3], lon[::3])
    blocks = unstack_channels(
        coarse[None], CHANNELS, TIMES, lat.reshape(-1, 2).mean(1), lon.reshape(-1, 2).mean(1)
    )
    stations = xr.Dataset(
        {"temperature": (("time", "station"), truth[:, [1, 4, 2], [0, 5, 7], 2])},
        {
            "time": TIMES,
            "station": ["a", "b", "c"],
            "latitude": ("station", lat[[1, 4, 2]]),
            "longitude": ("station", lon[[0, 5, 7]]),
            "level": ("station", [1000.0] * 3),
        },
    )
    sounder, longwave = Sounder.of(CHANNELS), OutgoingLongwave.of(CHANNELS)
    axes = {"time": TIMES, "latitude": lat, "longitude": lon}
    dims = ("time", "latitude", "longitude")
    bright = np.array(sounder(jnp.asarray(truth)))
    bright[:, :2] = np.nan
    flux = np.asarray(longwave(jnp.asarray(truth)))
    return [
        Observations("stations", stations, "points", error=0.5),
        Observations("masked", as_dataset(masked), "grid", error=2.0),
        Observations("coarse", blocks.isel(member=0), "coarse", error=0.5),
        Observations("sparse", sparse.isel(member=0), "stride", error=0.5),
        Observations(
            "sounder",
            xr.Dataset({"tb": ((*dims, "sounding"), bright)}, axes),
            "grid",
            "tb",
            np.full(6, 0.5),
            operator=sounder,
        ),
        Observations(
            "olr", xr.Dataset({"olr": (dims, flux)}, axes), "grid", "olr", 3.0, operator=longwave
        ),
    ]


def streams_of(observations, model):
    options = dict(climate=climate_of(model).mean(axis=0), std=STD)
    return [to_stream(o, GRID, CHANNELS, TIMES, **options) for o in observations]


def misfit(stream, members):
    """Root mean square innovation over its error, of the ensemble mean."""
    predicted = np.asarray(stream.operator(jnp.asarray(members.mean(axis=0))))
    ratio = (np.asarray(stream.values) - predicted) / np.sqrt(
        np.asarray(stream.covariance.variance)
    )
    return float(np.sqrt((ratio[np.asarray(stream.mask)] ** 2).mean()))


# --- what comes out ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("latent", [False, True])
def test_without_input_it_is_a_draw_from_the_prior(latent, latent_model, state_model):
    model = latent_model if latent else state_model
    model = dataclasses.replace(model, state_error=np.zeros((1, 1, 1, 3), np.float32))
    key = jax.random.key(5)
    analysis = assimilate(model, None, [], members=2, key=key, times=TIMES, sampler=FEW)
    networks = model.networks
    prior = trajectory_prior(networks, model.arrays)
    shape = (len(TIMES), *networks.frame_shape)
    for i in range(2):
        member = jax.random.fold_in(key, i)
        z = jax.jit(lambda key: sample(key, prior, shape, networks.schedule, FEW))(member)
        state = np.asarray(decode(networks, model.arrays, z)) + climate_of(model)
        np.testing.assert_allclose(members_of(analysis)[i], state, atol=2e-3)
    assert analysis.attrs["derivative_evaluations"] == 0
    assert analysis.attrs["streams"] == "none"


def test_output_is_a_cf_dataset(guided):
    analysis = guided
    field = analysis["temperature"]
    assert field.dims == ("member", "time", "level", "latitude", "longitude")
    assert field.shape == (3, 5, 3, *GRID.shape)
    assert field.dtype == np.float32
    assert field.attrs["units"] == "K"
    assert field.attrs["standard_name"] == "air_temperature"
    np.testing.assert_array_equal(analysis["time"], TIMES)
    np.testing.assert_array_equal(analysis["level"], LEVELS)
    np.testing.assert_array_equal(analysis["latitude"], GRID.latitude)
    np.testing.assert_array_equal(analysis["longitude"], GRID.longitude)
    for name, units in (
        ("level", "hPa"),
        ("latitude", "degrees_north"),
        ("longitude", "degrees_east"),
    ):
        assert analysis[name].attrs["units"] == units
    assert analysis.attrs["Conventions"].startswith("CF-")
    assert analysis.attrs["streams"] == "background"
    assert analysis.attrs["seconds"] > 0.0
    assert 1e8 < analysis.attrs["peak_memory_bytes"] < 1e12


# --- right, where the answer is known ----------------------------------------------------------


@pytest.mark.slow
def test_the_prior_of_white_noise_is_climate(exact_model):
    analysis = assimilate(
        exact_model,
        None,
        [],
        members=40,
        key=jax.random.key(1),
        times=TIMES,
        sampler=FINE,
    )
    z = (members_of(analysis) - climate_of(exact_model)) / STD
    n = z[..., 0].size
    assert np.all(np.abs(z.mean(axis=(0, 1, 2, 3))) < 4 / np.sqrt(n))
    np.testing.assert_allclose(z.std(axis=(0, 1, 2, 3)), 1.0, atol=4 / np.sqrt(2 * n) + 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["gaussian", "mmps"])
def test_the_posterior_of_white_noise_is_exact(rule, exact_model):
    """Independent points: mean and variance by hand, K² and all."""
    truth, error = some_truth(exact_model), 3.0
    observed = np.full_like(truth, np.nan)
    observed[::2] = truth[::2] + 1.0  # every other time, with a bias that is told
    stream = Observations("field", as_dataset(observed), "grid", error=error, bias=1.0)
    analysis = assimilate(
        exact_model,
        None,
        [stream],
        members=40,
        key=jax.random.key(1),
        times=TIMES,
        sampler=FINE,
        guidance=GuidanceConfig(rule=rule, iterations=4),
    )
    members, climate = members_of(analysis), climate_of(exact_model)
    gain = np.where((np.arange(5) % 2 == 0)[:, None], STD**2 / (STD**2 + error**2), 0.0)
    gain = gain[:, None, None, :]
    expected = climate + gain * (truth - climate)
    deviation = STD * np.sqrt(1.0 - gain)
    z = (members - expected) / deviation
    n = z[:, 0, ..., 0].size
    assert np.all(np.abs(z.mean(axis=(0, 2, 3))) < 4 / np.sqrt(n))
    np.testing.assert_allclose(z.std(axis=(0, 2, 3)), 1.0, atol=4 / np.sqrt(2 * n) + 0.02)
    # and point by point, not on average only
    assert np.abs(z.mean(axis=0)).max() < 5.5 / np.sqrt(40)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [FINE, SamplerConfig("split_gibbs", 2)], ids=["SDE", "Gibbs"])
def test_what_the_decoder_misses_is_analysed_too(exact_model, sampler):
    """x = z + e with white z and correlated e: the posterior of columns, by hand."""
    rng = np.random.default_rng(5)
    root = np.array([[0.9, 0.0, 0.0], [0.5, 0.6, 0.0], [-0.4, 0.3, 0.5]])
    missed = rng.standard_normal((300, *GRID.shape, 3)) @ root.T
    sample = (missed * STD).astype(np.float32)
    model = dataclasses.replace(decoded(exact_model), state_error=sample, increment_error=sample)
    truth, error = some_truth(model), np.array([1.0, np.inf, 2.0])
    observed = np.where(np.isfinite(error), truth, np.nan).astype(np.float32)
    stream = Observations("field", as_dataset(observed), "grid", error=np.minimum(error, 9.0))
    analysis = assimilate(
        model,
        None,
        [stream],
        members=40,
        key=jax.random.key(1),
        times=TIMES,
        score="gaussian",
        sampler=sampler,
        guidance=GuidanceConfig(iterations=20),
    )
    members, climate = members_of(analysis), climate_of(model)
    prior = (np.eye(3) + root @ root.T) * np.outer(STD, STD)
    covariance = np.linalg.inv(np.linalg.inv(prior) + np.diag(error**-2.0))
    expected = climate + (truth - climate) * error**-2.0 @ covariance
    off = (members - expected) @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    n = off[..., 0].size
    # The covariance of 300 fields is known to some per cent.
    np.testing.assert_allclose(off.mean(axis=(0, 1, 2, 3)), 0.0, atol=4 / np.sqrt(n) + 0.02)
    found = np.einsum("mtijc,mtijd->cd", off, off) / n
    np.testing.assert_allclose(found, np.eye(3), atol=4 * np.sqrt(2 / n) + 0.04)


def decoded(model):
    """The model with a decoder that is the identity."""
    inputs = (("state", 3), ("background", 3))
    config = AutoencoderConfig(3, inputs, 3, compression=1, width=8, blocks=1)
    states = np.random.default_rng(0).standard_normal((20, *GRID.shape, 3)).astype(np.float32)
    params, model_state = autoencoder.init(config, jax.random.key(0), GRID.shape, states=states)
    linear = params["decoder"]["linear"]
    linear["kernel"] = jnp.zeros_like(linear["kernel"]).at[1, 1].set(jnp.eye(3))
    return dataclasses.replace(
        model,
        networks=dataclasses.replace(model.networks, autoencoder=config),
        arrays=model.arrays._replace(autoencoder=params, model_state=model_state),
    )


@pytest.mark.slow
def test_the_background_counts_by_its_error_and_without_its_bias(exact_model):
    truth = some_truth(exact_model)
    analysis = assimilate(
        exact_model,
        as_dataset(truth + BIAS),
        [],
        members=10,
        key=jax.random.key(1),
        sampler=FINE,
    )
    off = (members_of(analysis) - truth) / STD
    # Prior variance 1, background variance 0.04: a small pull to climate and a spread of 0.2.
    np.testing.assert_allclose(off.mean(axis=(0, 1, 2, 3)), 0.0, atol=0.06)
    np.testing.assert_allclose(off.std(axis=0, ddof=1).mean(), 0.2, atol=0.04)
    assert analysis.attrs["streams"] == "background"


# --- the network, guided -----------------------------------------------------------------------


@pytest.mark.slow
def test_every_kind_of_stream_at_once(latent_model):
    truth = some_truth(latent_model)
    observations = every_kind(truth)
    options = dict(members=2, key=jax.random.key(2), sampler=FEW)
    prior = members_of(assimilate(latent_model, None, [], times=TIMES, **options))
    background = as_dataset(truth + BIAS)
    members = members_of(analysis := assimilate(latent_model, background, observations, **options))
    names = [*(o.name for o in observations), "background"]
    assert analysis.attrs["streams"] == ", ".join(names)
    assert np.isfinite(members).all()
    for stream in streams_of(observations, latent_model):
        assert misfit(stream, members) < 0.7 * misfit(stream, prior), stream.name
    error = lambda m: np.sqrt(((m.mean(axis=0) - truth) ** 2).mean())
    assert error(members) < 0.7 * error(prior)


@pytest.mark.slow
def test_what_the_equations_of_guidance_leave_is_told(exact_model):
    """Errors that differ leave something after one iteration, and nothing once all are solved."""
    truth = some_truth(exact_model)
    error = np.array([0.5, 2.0, 8.0])
    observed = Observations("field", as_dataset(truth), "grid", error=error)
    told = lambda **options: assimilate(
        exact_model,
        None,
        [observed],
        members=2,
        key=jax.random.key(3),
        times=TIMES,
        sampler=FEW,
        **options,
    ).attrs.get("residual")
    one, more = (told(guidance=GuidanceConfig(iterations=i, tolerance=0.0)) for i in (1, 4))
    assert one > 0.05 > 1e-3 > more >= 0.0
    assert told(guidance=GuidanceConfig("tmpd")) is None


@pytest.mark.slow
def test_how_far_members_are_from_the_posterior_is_told(exact_model, tmp_path):
    """Guidance is exact here: what is left is the error of the steps."""
    truth = some_truth(exact_model)
    observed = Observations("field", as_dataset(truth), "grid", error=1.0)

    def analysed(sampler, **options):
        options = dict(members=4, key=jax.random.key(3), times=TIMES, sampler=sampler) | options
        return assimilate(exact_model, None, [observed], **options)

    few, many = analysed(FEW), analysed(FINE)
    values = truth.size
    for analysis in (few, many):
        weights, told = analysis["log_weight"].values, analysis.attrs
        assert analysis["log_weight"].dims == ("member",)
        np.testing.assert_allclose(told["divergence"], 0.5 * weights.var(ddof=1), rtol=1e-6)
        np.testing.assert_allclose(told["divergence_per_observation"] * values, told["divergence"])
        assert 1.0 <= told["effective_paths"] <= 4.0
    assert many.attrs["divergence"] < 0.3 * few.attrs["divergence"]
    # Kept with the members, part by part.
    keep = ComputeConfig(member_batch=2, keep=tmp_path)
    for _ in range(2):
        np.testing.assert_allclose(analysed(FEW, compute=keep)["log_weight"], few["log_weight"])
    for without in (
        analysed(SamplerConfig("dpmpp_2m_ode", steps=6)),
        analysed(FEW, guidance=GuidanceConfig("tmpd")),
    ):
        assert "divergence" not in without.attrs
        assert "log_weight" not in without.coords


@pytest.mark.slow
def test_paths_are_resampled_by_their_weights(caplog):
    """Two observed values, which few paths suffice for: what is left is the error of the steps."""
    model = tiny_model(latent=False, network=0.0)
    values = np.full((len(TIMES), *GRID.shape, len(CHANNELS)), np.nan)
    climate = climate_of(model)
    values[2, 1, 2, 0] = climate[2, 1, 2, 0] + 2.0 * STD[0]
    values[4, 0, 0, 1] = climate[4, 0, 0, 1] - STD[1]
    observed = Observations("points", as_dataset(values), "grid", error=STD[:1].item())

    def analysed(**options):
        options = dict(members=128, key=jax.random.key(3), times=TIMES) | options
        return assimilate(model, None, [observed], **options)

    sampler = SamplerConfig(steps=16)
    one, several = (analysed(sampler=sampler, paths=paths) for paths in (1, 4))
    fine = analysed(sampler=SamplerConfig("dpmpp_3m_ode", steps=32))
    assert several.attrs["evaluations"] == 64
    effective = several.attrs["effective_paths"]
    assert 40 < effective < 512
    assert "log_weight" not in several.coords
    at = lambda analysis: members_of(analysis)[:, 2, 1, 2, 0] / STD[0]
    error = at(fine).std() * (1 / effective + 1 / 128) ** 0.5
    assert abs(at(several).mean() - at(fine).mean()) < 4.0 * error
    assert abs(at(several).std() - at(fine).std()) < 4.0 * error
    assert len(np.unique(at(several))) < len(np.unique(at(one))) == 128
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


@pytest.mark.slow
def test_paths_are_useless_with_many_observations(exact_model, caplog):
    observed = Observations("field", as_dataset(some_truth(exact_model)), "grid", error=0.01)
    options = dict(members=2, key=jax.random.key(3), times=TIMES, sampler=FEW, paths=2)
    assimilate(exact_model, None, [observed], **options)
    assert "of 4 paths, so that the members are copies of one" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paths": 0}, "paths must be at least 1, got 0"),
        ({"sampler": SamplerConfig("dpmpp_3m_ode")}, "several paths need weights, which rule"),
        ({"guidance": GuidanceConfig("sda")}, "several paths need weights, which rule 'sda'"),
        ({"compute": ComputeConfig(member_batch=2)}, "cannot be drawn 2 at a time"),
    ],
)
def test_paths_that_cannot_be_resampled_are_refused(exact_model, options, message):
    options = dict(members=4, key=jax.random.key(0), times=TIMES, paths=2) | options
    with pytest.raises(InputError, match=message):
        assimilate(exact_model, None, [], **options)


@pytest.mark.slow
def test_a_latent_observation_alone_moves_the_analysis(latent_model):
    truth = some_truth(latent_model)
    z = (truth - climate_of(latent_model)) / STD
    stream = latent_stream(latent_model, {"background": z})
    target = np.asarray(decode(latent_model.networks, latent_model.arrays, stream.values))
    options = dict(members=2, key=jax.random.key(2), times=TIMES, sampler=FEW)
    climate = climate_of(latent_model)
    distance = lambda analysis: np.abs((members_of(analysis) - climate - target) / STD).mean()
    prior = assimilate(latent_model, None, [], **options)
    posterior = assimilate(latent_model, None, [], latent_inputs={"background": z}, **options)
    assert distance(posterior) < 0.6 * distance(prior)


@pytest.mark.slow
def test_a_latent_input_that_is_not_given_is_missing(latent_model):
    names = ("background", "state")
    patterns = (names, ("background",), ("state",))
    scaled = lambda x: jnp.concatenate([n * x for n in (1.0, 2.0, 3.0)])  # of each pattern
    one = latent_model.latent
    statistics = dataclasses.replace(
        one,
        slope=tuple(map(scaled, one.slope)),
        variance=tuple(map(scaled, one.variance)),
        offset=scaled(one.offset),
    )
    model = dataclasses.replace(
        latent_model, latent=statistics, latent_inputs=names, latent_patterns=patterns
    )
    rng = np.random.default_rng(5)
    given = rng.standard_normal((5, *latent_model.grid.shape, 3)).astype(np.float32)
    missing = np.full_like(given, np.nan)
    alone = latent_stream(model, {"state": given})
    masked = latent_stream(model, {"state": given, "background": missing})
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(masked), strict=True)
    )
    both = latent_stream(model, {"state": given, "background": given})
    assert not np.allclose(both.values, alone.values)


@pytest.mark.slow
def test_members_depend_on_the_key_and_their_number_alone(guided, state_model):
    background = as_dataset(some_truth(state_model) + BIAS)
    three, key = members_of(guided), jax.random.key(3)
    batch = ComputeConfig(member_batch=2)
    five = assimilate(state_model, background, [], members=5, key=key, sampler=FEW, compute=batch)
    np.testing.assert_allclose(three, members_of(five)[:3], atol=0.05)
    key = jax.random.key(4)
    other = members_of(assimilate(state_model, background, [], members=3, key=key, sampler=FEW))
    for different in (other[0], three[1]):
        assert np.abs(different - three[0]).mean() > 0.3


@pytest.mark.slow
def test_chunks_of_windows_change_nothing(latent_model):
    background = as_dataset(some_truth(latent_model) + BIAS)
    options = dict(members=1, key=jax.random.key(3), sampler=FEW)
    options["guidance"] = GuidanceConfig(iterations=3)
    whole = members_of(assimilate(latent_model, background, [], **options))
    chunk = ComputeConfig(window_chunk=2)
    chunked = assimilate(latent_model, background, [], compute=chunk, **options)
    # Conjugate gradients magnify rounding: of 290 K, three parts in 10,000.
    np.testing.assert_allclose(members_of(chunked), whole, atol=0.1)


@pytest.mark.slow
def test_a_second_call_compiles_nothing(latent_model):
    truth = some_truth(latent_model)
    observations = every_kind(truth)[:2]
    z = (truth - climate_of(latent_model)) / STD
    compiled = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    def call(seed, shift):
        options = dict(members=2, key=jax.random.key(seed), sampler=FEW, times=TIMES)
        inputs = {"background": z + shift}
        return assimilate(latent_model, None, observations, latent_inputs=inputs, **options)

    first = call(0, 0.0)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        second = call(1, 1.0)
        assert compiled == []
        jax.jit(lambda x: x + 1.0)(3.0)  # the listener hears
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert np.abs(members_of(first) - members_of(second)).mean() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "derivatives", "at_most"), [("gaussian", 0, 0), ("sda", 3, 3), ("mmps", 2, 6)]
)
def test_evaluations_are_counted_right(rule, derivatives, at_most, state_model, monkeypatch):
    """Of the three steps, "mmps" asks one for derivatives: in the others noise prevails."""
    counts = {"forward": 0, "backward": 0}
    original = score.predict

    def count(name):
        counts[name] += 1

    def told(name):
        jax.debug.callback(lambda: count(name))

    def predict(config, params, x_t, t):
        @jax.custom_vjp
        def network(params, x_t, t):
            told("forward")
            return original(config, params, x_t, t)

        def forward(params, x_t, t):
            told("forward")
            return jax.vjp(lambda *args: original(config, *args), params, x_t, t)

        def backward(pull, cotangent):
            told("backward")
            return pull(cotangent)

        network.defvjp(forward, backward)
        return network(params, x_t, t)

    monkeypatch.setattr(score, "predict", predict)
    compiled_analysis.cache_clear()
    try:
        analysis = assimilate(
            state_model,
            as_dataset(some_truth(state_model)),
            [],
            members=1,
            key=jax.random.key(0),
            sampler=SamplerConfig(steps=3),
            guidance=GuidanceConfig(rule=rule, iterations=2),
        )
        jax.effects_barrier()
    finally:
        compiled_analysis.cache_clear()
    assert counts["forward"] == analysis.attrs["evaluations"] == 3
    assert counts["backward"] == derivatives
    assert analysis.attrs["derivative_evaluations"] == at_most


# --- the same analysis from other forms of its input -------------------------------------------


def west(data):
    return data.assign_coords(longitude=(data.longitude + 180.0) % 360.0 - 180.0).sortby(
        "longitude"
    )


def celsius(data):
    return data.assign(temperature=(data.temperature - 273.15).assign_attrs(units="degC"))


FORMS = {
    "north first, top last, -180 to 180": lambda d: west(
        d.isel(latitude=slice(None, None, -1), level=slice(None, None, -1))
    ),
    "degC, latest first": lambda d: celsius(d).isel(time=slice(None, None, -1)),
    "other names": lambda d: d.temperature.rename(
        "ta", latitude="lat", longitude="lon", time="valid_time"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_background_in_another_form_is_the_same(form, guided, state_model):
    background = FORMS[form](as_dataset(some_truth(state_model) + BIAS))
    analysis = assimilate(
        state_model, background, [], members=3, key=jax.random.PRNGKey(3), times=TIMES, sampler=FEW
    )
    np.testing.assert_allclose(members_of(analysis), members_of(guided), atol=0.02)
    np.testing.assert_array_equal(analysis["time"], TIMES)


@pytest.mark.slow
def test_the_step_of_the_model_is_enforced(exact_model):
    options = dict(members=1, key=jax.random.key(0), sampler=FEW)
    daily = dataclasses.replace(exact_model, time_step=np.timedelta64(24, "h"))
    assimilate(daily, None, [], times=TIMES, **options)
    hourly = TIMES[0] + np.arange(5) * np.timedelta64(6, "h")
    with pytest.raises(InputError, match="are 6 h apart, the model was trained on steps of 24 h"):
        assimilate(daily, None, [], times=hourly, **options)
    background = as_dataset(some_truth(exact_model))
    background["time"] = TIMES[0] + np.arange(len(TIMES)) * np.timedelta64(12, "h")
    with pytest.raises(InputError, match="are 12 h apart, the model was trained on steps of 24 h"):
        assimilate(daily, background, [], **options)


@pytest.mark.slow
@pytest.mark.parametrize("score_kind", ["network", "gaussian"])
def test_useless_observations_leave_an_analysis_no_worse_than_its_background(
    exact_model, score_kind
):
    """Corrected for the size of the ensemble; the prior can only help."""
    truth, rng = some_truth(exact_model), np.random.default_rng(8)
    error = BACKGROUND_ERROR * STD * rng.standard_normal(truth.shape)
    noise = 10.0 * rng.standard_normal(truth.shape)  # and said to be far more
    members = 8
    analysis = assimilate(
        exact_model,
        as_dataset(truth + BIAS + error),
        [Observations("useless", as_dataset(truth + noise), "grid", error=1e5)],
        members=members,
        key=jax.random.key(4),
        score=score_kind,
        sampler=SamplerConfig(steps=16),
    )
    states = members_of(analysis)
    missed = np.square((states.mean(axis=0) - truth) / STD).mean()
    missed -= np.mean(states.var(axis=0, ddof=1) / STD**2) / members
    # The posterior variance of a white prior is 4 % below the error of this background.
    assert missed < np.square(error / STD).mean()


@pytest.mark.slow
def test_one_time_is_the_marginal_of_the_trajectory(exact_model, monkeypatch):
    """Of a Gaussian prior that is correlated in time: mean and variance by hand."""
    prior = white_prior(lags=(0.8, 0.64))
    model = dataclasses.replace(exact_model, arrays=exact_model.arrays._replace(prior=prior))

    def gaussian(networks, *_, **__):
        def denoiser(x, t):
            assert x.shape[0] == 3  # the frames of a window
            a, s = networks.schedule.alpha(t), networks.schedule.sigma(t)
            return prior.posterior(x * a / s**2, s**2 / a**2)

        return denoiser

    monkeypatch.setattr(posterior, "trajectory_prior", gaussian)
    posterior.compiled_analysis.cache_clear()
    truth, error = some_truth(model)[:1], 3.0
    # Those of the days after are not the analysis's, though they are where it is padded.
    data = as_dataset(np.concatenate([truth, truth + 20.0]), TIMES[:2])
    observed = Observations("field", data, "grid", error=error)
    try:
        analysis = assimilate(
            model,
            None,
            [observed],
            members=60,
            key=jax.random.key(1),
            times=TIMES[:1],
            sampler=FINE,
        )
    finally:
        posterior.compiled_analysis.cache_clear()
    members, climate = members_of(analysis), climate_of(model)[:1]
    assert members.shape[1] == 1
    gain = STD**2 / (STD**2 + error**2)
    z = (members - climate - gain * (truth - climate)) / (STD * np.sqrt(1.0 - gain))
    n = z[..., 0].size
    assert np.all(np.abs(z.mean(axis=(0, 1, 2, 3))) < 4 / np.sqrt(n))
    np.testing.assert_allclose(z.std(axis=(0, 1, 2, 3)), 1.0, atol=4 / np.sqrt(2 * n) + 0.02)
    (told,) = json.loads(analysis.attrs["diagnostics"])
    assert told["count"] == truth.size


@pytest.mark.slow
def test_two_times_with_a_background_and_latent_inputs(latent_model):
    """Fewer times than a window: every stream is padded."""
    truth = some_truth(latent_model)[:2]
    options = dict(members=2, key=jax.random.key(2), sampler=FEW)
    background = as_dataset(truth + BIAS, TIMES[:2])
    analysis = assimilate(latent_model, background, [], **options)
    assert members_of(analysis).shape == (2, 2, *GRID.shape, 3)
    off = lambda a: np.abs(members_of(a) - truth).mean()
    z = {"background": (truth - climate_of(latent_model)[:2]) / STD}
    prior = assimilate(latent_model, None, [], times=TIMES[:2], **options)
    encoded = assimilate(latent_model, None, [], times=TIMES[:2], latent_inputs=z, **options)
    assert off(analysis) < 0.5 * off(prior)
    assert off(encoded) < off(prior)


# --- nothing is lost, whatever the settings ----------------------------------------------------


@pytest.mark.slow
def test_a_stream_whose_values_are_all_rejected_is_left_out(exact_model, caplog):
    truth = some_truth(exact_model)
    observed = Observations("far", as_dataset(truth + 30.0), "grid", error=0.5)
    options = dict(members=1, key=jax.random.key(1), sampler=FEW)
    background = as_dataset(truth)
    analysis = assimilate(exact_model, background, [observed], gross_error=3.0, **options)
    alone = assimilate(exact_model, background, [], **options)
    np.testing.assert_array_equal(members_of(analysis), members_of(alone))
    assert analysis.attrs["streams"] == "background"
    assert "stream 'far' has no value left and is left out" in caplog.text


@pytest.mark.slow
def test_diagnostics_that_fail_lose_nothing(exact_model, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(analysis_module, "diagnose", broken)
    background = as_dataset(some_truth(exact_model))
    analysis = assimilate(
        exact_model, background, [], members=1, key=jax.random.key(1), sampler=FEW
    )
    assert np.isfinite(members_of(analysis)).all()
    assert json.loads(analysis.attrs["diagnostics"]) == []
    assert "the analysis is complete, but its diagnostics failed: out of memory" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["jax_debug_nans", "jax_enable_x64"])
def test_flags_of_the_user_are_respected(flag, exact_model):
    background = as_dataset(some_truth(exact_model))
    options = dict(members=1, key=jax.random.key(1), sampler=FEW)
    jax.config.update(flag, True)
    try:
        with jax.numpy_dtype_promotion("standard"):  # as users have it
            analysis = assimilate(exact_model, background, [], **options)
    finally:
        jax.config.update(flag, False)
    assert analysis["temperature"].dtype == np.float32
    assert np.isfinite(members_of(analysis)).all()


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.slow
def test_members_that_diverge_are_named(state_model):
    broken = jax.tree.map(lambda x: x * jnp.nan, state_model.arrays.score)
    model = dataclasses.replace(state_model, arrays=state_model.arrays._replace(score=broken))
    with pytest.raises(
        RunError,
        match=r"members \[0, 1\] of 2 are not finite from diffusion time t = 0.955: take more",
    ):
        assimilate(model, None, [], members=2, key=jax.random.key(0), times=TIMES, sampler=FEW)


def stream(name, truth, at=TIMES):
    return Observations(name, as_dataset(truth, at), "grid", error=1.0)


BAD_CALLS = {  # of a truth, by what the message says
    "members must be at least 1, got 0": lambda truth: dict(members=0),
    "give the times of the analysis": lambda truth: dict(times=None),
    "inflation must be positive and finite, got inf": lambda truth: dict(inflation=np.inf),
    "inflation must be positive and finite, got nan": lambda truth: dict(inflation=np.nan),
    r"key must be one random key, got 0: give jax.random.key\(0\)": lambda truth: dict(key=0),
    "the times of the analysis must ascend without duplicates": lambda truth: dict(
        times=TIMES[[0, 1, 1]]
    ),
    "the times of the analysis has missing entries": lambda truth: dict(
        times=np.append(TIMES, np.datetime64("NaT"))
    ),
    "have a gap between 2001-07-02T00:00 and 2001-07-04T00:00, where the step is 24 h": (
        lambda truth: dict(times=TIMES[[0, 1, 3]])
    ),
    "the background is on another grid .6 x 8, .* 5 to 320 E. than the model's": (
        lambda truth: dict(
            background=as_dataset(truth).assign_coords(longitude=np.asarray(GRID.longitude) + 5.0)
        )
    ),
    "the background: temperature has .*a grid with latitude and": lambda truth: dict(
        background=as_dataset(truth).isel(latitude=0)
    ),
    "the members of the background are all the same: give one of them": lambda truth: dict(
        background=xr.concat([as_dataset(truth)] * 2, "member")
    ),
    "the background: temperature reaches .* K, outside": lambda truth: dict(
        background=as_dataset(truth) - 273.15
    ),
    "the background: dimension time has no times": lambda truth: dict(
        background=as_dataset(truth).drop_vars("time")
    ),
    "the background: time must ascend without duplicates": lambda truth: dict(
        background=as_dataset(truth).isel(time=[0, 1, 1, 2])
    ),
    "the background is a ndarray: give an xarray Dataset": lambda truth: dict(background=truth),
    "have a gap between 2001-07-02": lambda truth: dict(
        background=as_dataset(truth).isel(time=[0, 1, 3, 4]), times=None
    ),
    "are not those of the background .5 from 2001-07-01": lambda truth: dict(
        background=as_dataset(truth), times=times(start="2001-07-02")
    ),
    "'background' enters twice, as background and as latent input": lambda truth: dict(
        background=as_dataset(truth), latent_inputs={"background": truth}
    ),
    "'background' enters twice, as stream and as background": lambda truth: dict(
        background=as_dataset(truth), observations=[stream("background", truth)]
    ),
    "'background' enters twice, as stream and as latent input": lambda truth: dict(
        observations=[stream("background", truth)], latent_inputs={"background": truth}
    ),
    "'field' enters twice, as stream and as stream": lambda truth: dict(
        observations=[stream("field", truth)] * 2
    ),
    r"lacks the levels \[20.0\]": lambda truth: dict(
        background=as_dataset(truth).isel(level=[1, 2])
    ),
    "the background: no variable 'temperature'; it has wind": lambda truth: dict(
        background=as_dataset(truth).rename(temperature="wind").drop_attrs()
    ),
    r"latent inputs are \['stations'\], but .* \['background'\]: give some": lambda truth: dict(
        latent_inputs={"stations": truth}
    ),
    "stream 'late' has times 2003-07-01": lambda truth: dict(
        observations=[stream("late", truth, times(start="2003-07-01"))]
    ),
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_input(message, latent_model):
    options = {"background": None, "observations": [], "members": 1, "times": TIMES}
    options |= {"key": jax.random.key(0)} | BAD_CALLS[message](some_truth(latent_model))
    with pytest.raises(InputError, match=message) as caught:
        assimilate(
            latent_model,
            options.pop("background"),
            options.pop("observations"),
            sampler=FEW,
            **options,
        )
    assert "\n" not in str(caught.value)


def test_a_model_without_these_errors_refuses_background_and_latent(state_model):
    plain = dataclasses.replace(state_model, background=None)
    background = as_dataset(some_truth(plain))
    options = dict(members=1, key=jax.random.key(0), sampler=FEW)
    with pytest.raises(InputError, match="trained without a background"):
        assimilate(plain, background, [], **options)
    with pytest.raises(InputError, match="has no latent observations"):
        assimilate(
            plain, None, [], times=TIMES, latent_inputs={"background": np.zeros(1)}, **options
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(gamma=-1.0, rule="sda"), "gamma must not be negative, got -1.0"),
        (dict(iterations=0), "at least one iteration, got 0"),
    ],
)
def test_guidance_is_checked_at_once(options, message):
    with pytest.raises(InputError, match=message):
        GuidanceConfig(**options)


def test_round_trip_through_the_library(guided):
    """What `assimilate` gives is what `stack_channels` takes."""
    stacked = stack_channels(guided.isel(member=1), CHANNELS)
    np.testing.assert_array_equal(stacked, members_of(guided)[1])
