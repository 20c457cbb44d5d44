"""A model in one file: written, carried elsewhere, read again, and refused where it is damaged."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from slams_jax.errors import InputError
from slams_jax.models import (
    decode,
    demo_model,
    encode,
    load_model,
    save_model,
    score,
    trajectory_prior,
)
from support import bad_models, web_server
from support.small_model import CHANNELS, GRID, assert_same_model, everything, tiny_model

STEP = np.timedelta64(6, "h")


@pytest.fixture(scope="module")
def model():
    """A latent model that says where it is from."""
    provenance = {
        "fields": {"state": [str(c) for c in CHANNELS]},
        "periods": {"train": ["2001-01-01T00:00", "2001-02-01T00:00", 125]},
        "training": {"score": {"optimiser": {"steps": 70}, "batch_size": 4}},
        "seed": 0,
        "denoising": {
            "network": [0.01 * n for n in range(1, 8)],
            "Gaussian prior": [0.02 * n for n in range(1, 8)],
        },
    }
    return dataclasses.replace(
        tiny_model(latent=True),
        time_step=STEP,
        calendar="proleptic_gregorian",
        units={"temperature": "K"},
        provenance=provenance,
    )


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return save_model(model, tmp_path_factory.mktemp("saved") / "ours.safetensors")


def test_a_model_is_read_as_it_was_written(model, file):
    assert_same_model(load_model(file), model)
    assert_same_model(load_model(str(file)), model)
    assert sorted(p.name for p in file.parent.iterdir()) == ["ours.md", "ours.safetensors"]


def test_a_model_of_the_state_itself_that_says_nothing_of_its_origin(tmp_path):
    model = tiny_model(latent=False)
    path = save_model(model, tmp_path / "new" / "plain.safetensors")
    assert_same_model(load_model(path), model)
    assert load_model(path).time_step is None
    assert "not recorded" in path.with_suffix(".md").read_text()


def test_an_older_network_has_one_noise_level_for_all_frames(model, tmp_path):
    config = dataclasses.replace(model.networks.score, frame_noise=False)
    networks = dataclasses.replace(model.networks, score=config)
    params = score.init(config, jax.random.key(1), networks.frame_shape[:2])
    arrays = model.arrays._replace(score=params)
    older = dataclasses.replace(model, networks=networks, arrays=arrays)
    path = save_model(older, tmp_path / "older.safetensors")
    header, tensors = bad_models.parts(path)
    del header["networks"]["score"]["frame_noise"]
    bad_models.write(header, tensors, path)
    assert_same_model(load_model(path), older)


def test_a_path_may_begin_at_home(model, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_model(model, "~/ours.safetensors")
    assert_same_model(load_model("~/ours.safetensors"), model)


@pytest.mark.slow
def test_half_precision_halves_what_is_large_and_nothing_else(model, file, tmp_path):
    half = save_model(model, tmp_path / "half.safetensors", dtype="float16")
    full, kept = (safetensors.numpy.load_file(p) for p in (file, half))
    for name, value in full.items():
        halved = name.startswith(
            (
                *("score/", "autoencoder/", "prior/vectors", "background_error/patterns"),
                *("state_error", "increment_error"),
            )
        )
        assert kept[name].dtype == (np.float16 if halved else value.dtype), name
        np.testing.assert_allclose(kept[name], value, rtol=1e-3, atol=1e-6 if halved else 0.0)
    loaded = load_model(half)
    assert all(x.dtype != np.float16 for x in jax.tree.leaves(everything(loaded)))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, *GRID.shape, 3)), jnp.float32)

    def outputs(m):
        z = encode(m.networks, m.arrays, {"state": x})
        denoised = trajectory_prior(m.networks, m.arrays)(z, jnp.float32(0.5))
        return decode(m.networks, m.arrays, denoised)

    np.testing.assert_allclose(outputs(loaded), outputs(model), atol=0.05)


def test_eight_bits_lose_little_and_eofs_stay_orthonormal(model, file, tmp_path):
    small = save_model(model, tmp_path / "small.safetensors", dtype="int8")
    kept = safetensors.numpy.load_file(small)
    assert kept["prior/vectors"].dtype == kept["state_error"].dtype == np.int8
    assert all(v.dtype == np.float16 for n, v in kept.items() if n.startswith("autoencoder/"))
    loaded = load_model(small)
    for full, found in (
        (model.background_error[0].patterns, loaded.background_error[0].patterns),
        (model.arrays.prior.modes.vectors, loaded.arrays.prior.modes.vectors),
    ):
        product = np.einsum("...dm,...dn->...mn", found.conj(), found)
        np.testing.assert_allclose(
            product, np.broadcast_to(np.eye(found.shape[-1]), product.shape), atol=1e-5
        )
        overlap = np.abs(np.sum(full.conj() * found, axis=-2))
        np.testing.assert_allclose(overlap, 1.0, atol=2e-3)
    np.testing.assert_allclose(loaded.state_error, model.state_error, rtol=0.01)


def test_the_card_says_what_the_model_is(model, tmp_path):
    scores = {"analysis": {"RMSE": 1.234, "CRPS": 0.5}, "background": {"RMSE": 2.0}}
    path = save_model(
        model,
        tmp_path / "ours.safetensors",
        scores=scores,
        licence="CC-BY-4.0",
        description="For a test.",
    )
    card = path.with_suffix(".md").read_text()
    for part in (
        "# ours\n",
        "For a test.",
        'load_model("ours.safetensors")',
        "| temperature | K on 20, 300, 1000 hPa |",
        "6 x 8 points, -75 to 75 degrees north",
        "| time step | 6 h |",
        "| train | 2001-01-01T00:00 | 2001-02-01T00:00 | 125 |",
        "| score.steps | 70 |",
        "| autoencoder.latent_channels | 4 |",
        "| log-SNR | 2.5 | 1.5 |",
        "| Gaussian prior | 0.0200 | 0.0400 |",
        "| analysis | 1.234 | 0.500 |",
        "| background | 2.000 |  |",
        "CC-BY-4.0",
    ):
        assert part in card, part


def test_a_write_that_fails_leaves_what_was_there(model, tmp_path):
    path = save_model(model, tmp_path / "ours.safetensors")
    before = path.read_bytes()
    large = {**model.arrays.score, "large": np.full(1, 1e5, np.float32)}
    other = dataclasses.replace(model, arrays=model.arrays._replace(score=large))
    with pytest.raises(InputError, match="does not fit into float16"):
        save_model(other, path, dtype="float16")
    assert path.read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        save_model(model, tmp_path / "file" / "ours.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "ours.md", "ours.safetensors"]


@pytest.mark.slow
def test_the_library_has_a_model_of_its_own():
    model = demo_model()
    assert model.grid.shape == (32, 64)
    assert len(model.channels) == 8
    assert model.latent_inputs == ("gauges", "olr")
    assert model.time_step == np.timedelta64(1, "D")
    assert model.background_error is not None


# --- over HTTP -----------------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path, file, monkeypatch):
    """A server of a folder that holds the model, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("slams_jax.readers.remote.PAUSE", 0.01)
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / file.name).write_bytes(file.read_bytes())
    with web_server.serving(folder) as server:
        yield server, folder / file.name


def downloads(server):
    return [path for path in server.requests if path.endswith(".safetensors")]


def test_a_model_behind_a_url_is_fetched_once(web, model):
    server, published = web
    url = f"{server.url}/{published.name}"
    assert_same_model(load_model(url), model)
    count = len(downloads(server))
    assert_same_model(load_model(url), model)
    assert len(downloads(server)) == count


def test_a_connection_that_breaks_is_tried_again(web, model):
    server, published = web
    server.faults.append(web_server.dropped(published.name, 1))
    assert_same_model(load_model(f"{server.url}/{published.name}"), model)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_download_is_told_and_a_repaired_one_is_read(damage, web, model):
    server, published = web
    good = published.read_bytes()
    url = f"{server.url}/{published.name}"
    middle = len(good) // 2
    bad = {
        "truncated": good[:-8],
        "flipped": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
    }
    published.write_bytes(bad[damage])
    with pytest.raises(InputError, match=f"^{url}: .*damaged.*fetch it again"):
        load_model(url)
    published.write_bytes(good)
    assert_same_model(load_model(url), model)


def test_a_url_without_a_model(web):
    server, _ = web
    with pytest.raises(InputError, match="no such file or store"):
        load_model(f"{server.url}/gone.safetensors")
