"""Try guidance rules and solvers on problems whose posteriors are known.

    python -m experiments.calibrate --output=runs/calibration --quick
    python -m experiments.calibrate --cases=d --lorenz=runs/lorenz63 --output=runs/calibration-d
    python -m experiments.calibrate --cases=h --sda=runs/sda_lorenz63 --output=runs/calibration-h
    python -m experiments.calibrate --cases=e --config=configs/demo.py --output=runs/calibration-e

Groups of cases: (a) Gaussian random fields on the sphere, (b) mixtures and a curved ridge, (c)
Markov trajectories, (f) latents, (g) rain and (i) long Markov trajectories with next to no noise,
all from `slams_jax.reference_problems`; (d) Lorenz-63 with the score that configs/lorenz63.py
trains; (e) the trained model of a configuration, scored against withheld truth; (h) noisy Lorenz-63
with the score that configs/sda_lorenz63.py trains.

Writes `calibration.json` (a list of rows), `calibration.md` (the table) and one picture a case; (d)
also the rank histograms `ranks.json` and `ranks.png`; (e) the table `trained.md`. Rows found in the
output folder are not computed again.
"""

from pathlib import Path

from absl import flags, logging

from experiments.calibrate import report, trained
from experiments.calibrate.run import (
    GROUPS,
    LORENZ,
    NOISY,
    TRAINED,
    calibrate,
    kept_rows,
    write_rows,
)
from experiments.configuration.settings import read
from experiments.process import cli
from slams_jax.errors import InputError
from slams_jax.storage import write_text

FLAGS = flags.FlagValues()
CONFIG = cli.config_flag(FLAGS)
OUTPUT = cli.path_flag(FLAGS, "output", "Folder for the results; runs/calibration if not given.")
QUICK = flags.DEFINE_bool("quick", False, "Few rows and members: a few minutes.", flag_values=FLAGS)
CASES = flags.DEFINE_list("cases", ["a", "b", "c", "f"], "Groups of cases.", flag_values=FLAGS)
MODEL = cli.path_flag(
    FLAGS, "lorenz", "For group d: work directory of a model of configs/lorenz63.py."
)
NOISY_MODEL = cli.path_flag(
    FLAGS, "sda", "For group h: work directory of a model of configs/sda_lorenz63.py."
)


def main() -> None:
    """Calibrate what the flags say."""
    unknown = [name for name in CASES.value if name not in GROUPS]
    if unknown or not CASES.value:
        raise InputError(f"unknown cases {unknown}: choose some of --cases={','.join(GROUPS)}")
    if QUICK.value and {LORENZ, TRAINED, NOISY} & set(CASES.value):
        raise InputError(
            "cases d, e and h have no quick form: leave out --quick, or them from --cases"
        )
    if TRAINED in CASES.value and CONFIG.value is None:
        raise InputError("case e needs a trained model: set --config to its configuration")
    folder = cli.folder(OUTPUT.value or Path("runs/calibration"))
    groups = [g for g in CASES.value if g != TRAINED]
    models = {LORENZ: MODEL.value, NOISY: NOISY_MODEL.value}
    rows = calibrate(groups, folder, quick=QUICK.value, models=models)
    if rows:
        print(report.best(rows))
    if TRAINED in CASES.value:
        of_model = trained.trained_rows(read(CONFIG.value))
        rows = [*rows, *of_model]
        write_rows([*kept_rows(folder).values(), *of_model], folder)
        write_text(trained.table(of_model), folder / "trained.md")
        print(trained.table(of_model))
    logging.info("%d rows in %s", len(rows), folder / "calibration.json")


if __name__ == "__main__":
    cli.run(main, FLAGS, optional_config=True)
