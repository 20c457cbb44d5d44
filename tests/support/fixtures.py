"""What tests of many rooms share, made once in a run. Nobody may change it.

The library is imported inside the functions: this file is read before its types are checked.
"""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """The folder of the files of the small world; the archives made from them are beside them."""
    from support.small_world import write_world

    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def latent_model():
    """A tiny model with an autoencoder."""
    from support.small_model import tiny_model

    return tiny_model(latent=True)


@pytest.fixture(scope="session")
def state_model():
    """A tiny model of the state itself."""
    from support.small_model import tiny_model

    return tiny_model(latent=False)


@pytest.fixture
def model(latent_model):
    """The model where it does not matter which."""
    return latent_model
