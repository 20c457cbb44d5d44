"""Generate a nature run: a true state, an imperfect background and simulated observations.

    python -m experiments.generate --config=configs/held_suarez.py --config.nature.days=100

Takes any configuration with a group `nature`, that of a whole run too. Prints the folder of CF
NetCDF files below `nature.cache`. The folder is named by a digest of the
settings and reused if it exists. Dates start on 2000-01-01; only those of the moist atmosphere have
seasons.
"""

from absl import flags

from experiments.configuration.build import plain
from experiments.configuration.nature import read_nature
from experiments.process import cli
from slams_jax.dynamics import nature_run
from slams_jax.errors import InputError

FLAGS = flags.FlagValues()
CONFIG = cli.config_flag(FLAGS)


def main() -> None:
    """Generate the run of the configuration."""
    values = plain(CONFIG.value)
    if values.get("nature") is None:
        raise InputError(
            "the configuration has no nature run: give it a group 'nature', as in "
            "configs/held_suarez.py"
        )
    print(nature_run(read_nature(values["nature"])))


if __name__ == "__main__":
    cli.run(main, FLAGS)
