import pytest

from slams_jax.errors import InputError
from slams_jax.schema import COORDINATE_ALIASES, SLAMS_LEVELS, VARIABLES, Channel, channels_of


def test_channels_keep_the_levels_of_a_variable_side_by_side():
    assert channels_of(("temperature", "geopotential"), (500.0, 850.0)) == (
        Channel("temperature", 500.0),
        Channel("temperature", 850.0),
        Channel("geopotential", 500.0),
        Channel("geopotential", 850.0),
    )
    assert channels_of(("2m_temperature",), ()) == (Channel("2m_temperature"),)
    assert len(channels_of(("temperature",), SLAMS_LEVELS)) == 10


def test_channels_read_well():
    assert str(Channel("temperature", 925.0)) == "temperature 925 hPa"
    assert str(Channel("2m_temperature")) == "2m_temperature"


@pytest.mark.parametrize(
    ("variables", "levels", "message"),
    [
        ((), (500.0,), "variables is empty"),
        (("temperature",), (850.0, 500.0), "levels must ascend"),
        (("temperature",), (500.0, 500.0), "levels must ascend"),
        (("temperature",), (50000.0,), r"lie in \(0, 1100\] hPa"),
        (("temperature",), (0.0, 500.0), r"lie in \(0, 1100\] hPa"),
    ],
)
def test_errors(variables, levels, message):
    with pytest.raises(InputError, match=message):
        channels_of(variables, levels)


def test_no_alias_names_two_things():
    for table in (
        [(a, name) for name, aliases in COORDINATE_ALIASES.items() for a in aliases],
        [(a, v.name) for v in VARIABLES.values() for a in (*v.aliases, v.name)],
    ):
        aliases = [alias for alias, _ in table]
        assert len(aliases) == len(set(aliases))
        assert all(alias == alias.lower() for alias in aliases)
