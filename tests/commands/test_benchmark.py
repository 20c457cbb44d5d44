"""The benchmark on small networks: what it compares is the same, what it counts is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import analyses as benchmark_analyses
from experiments.benchmark import filters as benchmark_filters
from experiments.benchmark import networks as benchmark_networks
from experiments.benchmark import pytorch_twin as twin
from experiments.benchmark import tables as benchmark_tables
from experiments.benchmark.machine import Machine
from slams_jax.diffusion import SamplerConfig, sample
from slams_jax.models import score
from slams_jax.models.score import ScoreConfig

SMALL = dict(window=3, channels=2, widths=(4, 6), blocks=1, embedding=8, frame_noise=False)


@pytest.mark.parametrize(
    ("padding", "coordinates", "prediction"),
    [("torus", "none", "eps"), ("sphere", "latitude", "v")],
)
def test_the_twin_gives_the_same_guided_estimate_and_gradients(padding, coordinates, prediction):
    pytest.importorskip("torch")
    config = ScoreConfig(padding=padding, coordinates=coordinates, prediction=prediction, **SMALL)
    params = benchmark_networks._params(config, (8, 12))
    guided = benchmark_networks._guided(config, params, (8, 12))
    assert guided.difference < 2e-5
    rng = np.random.default_rng(3)
    windows = rng.normal(size=(2, 3, 8, 12, 2)).astype(np.float32)
    assert benchmark_networks._gradient_difference(config, params, windows) < 2e-5


def test_a_twin_of_other_mathematics_is_noticed():
    """Padding on a torus is not padding over the poles."""
    torch = pytest.importorskip("torch")
    config = ScoreConfig(padding="sphere", coordinates="none", prediction="v", **SMALL)
    other = ScoreConfig(padding="torus", coordinates="none", prediction="v", **SMALL)
    params = benchmark_networks._params(config, (8, 12))
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 12, 2)).astype(np.float32)
    ours = score.predict(config, params, jnp.asarray(x), jnp.full((1, 1), 0.5))
    theirs = twin.predict(other, twin.copy_params(params), twin.windows(x), torch.full((1,), 0.5))
    flat = np.asarray(ours).transpose(0, 1, 4, 2, 3).reshape(1, 6, 8, 12)
    assert np.abs(flat - theirs.detach().numpy()).max() > 1e-2


@pytest.mark.slow
def test_operations_are_those_of_the_convolutions_and_products():
    config = ScoreConfig(padding="torus", coordinates="none", prediction="v", **SMALL)
    params = score.init(config, jax.random.key(0), (8, 12))
    fine, coarse, time = 8 * 12, 4 * 6, 32 * 256 + 256 * 8
    expected = 9 * (6 * 4 * fine + 4 * 6 * coarse)  # first, down
    expected += 2 * (2 * 9 * 4 * 4 * fine + 8 * 4)  # blocks, with their modulation
    expected += 2 * (2 * 9 * 6 * 6 * coarse + 8 * 6)
    expected += 4 * 6 * 4 * 4 * 5 * 7  # up: two by two, at the corners, for four phases
    expected += 9 * 4 * 6 * fine + time
    found = benchmark_networks._forward_operations(config, params, (8, 12), 5)
    assert found == 2 * 5 * expected


@pytest.mark.slow
def test_the_scan_draws_what_the_sampler_draws():
    key, shape, schedule = jax.random.key(1), (3, 4, 6, 2), benchmark_networks.SCHEDULE
    denoiser = lambda x, t: jnp.tanh(x) * (1.0 - t)
    config = SamplerConfig("dpmpp_2m", 8)
    found = jax.jit(lambda key: sample(key, denoiser, shape, schedule, config))(key)
    expected = jax.jit(lambda key: benchmark_analyses.scan(key, denoiser, shape, 8))(key)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.slow
def test_filters_do_as_well_as_those_of_dapper():
    """On its own truth and observations."""
    pytest.importorskip("dapper")
    rows = list(benchmark_filters.run_filters(Machine("a CPU", 1.0, 1.0), 1, 300))
    assert len(rows) == 5
    for row in rows:
        # With other random numbers; the square roots on Lorenz-96 hardly feel them.
        tolerance = 0.15 if "63" in row["case"] or "stochastic" in row["case"] else 0.03
        assert row["rmse"] == pytest.approx(row["dapper_rmse"], rel=tolerance), row
    text = benchmark_tables.tables(
        [{"case": "limit", "device": "a CPU", "dtype": "float32", "seconds": 1.0}, *rows]
    )
    assert text.count("| Lorenz-") == 5


def test_without_dapper_there_are_no_rows_of_filters(monkeypatch):
    monkeypatch.setattr(benchmark_filters, "available", lambda: False)
    assert list(benchmark_filters.run_filters(Machine("a CPU", 1.0, 1.0), 1, 300)) == []


def test_tables_leave_out_what_nobody_measured():
    rows = [
        {
            "case": "limit: product",
            "seconds": 0.1,
            "gflops": 170.0,
            "device": "a CPU",
            "dtype": "float32",
        },
        {
            "case": "guided",
            "seconds": 0.2,
            "percent_of_peak": 61.2,
            "gflops": 15.0,
            "throughput_over_pytorch": None,
        },
        {"case": "draw", "seconds": 2.0, "evaluations": 512},
    ]
    text = benchmark_tables.tables(rows)
    assert "| guided | 0.2 | 61 | 15.0 |" in text
    assert "| draw | 2 | 512 |" in text
    assert "PyTorch" not in text
    rows[1]["throughput_over_pytorch"] = 1.314
    assert "| guided | 0.2 | 1.31 | 61 | 15.0 |" in benchmark_tables.tables(rows)
