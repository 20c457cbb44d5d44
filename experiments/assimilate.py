"""Draw an ensemble of analyses with a trained model.

    python -m experiments.assimilate --config=configs/demo.py --output=runs/demo/analysis.nc

The output is NetCDF (.nc) or Zarr (.zarr), and is complete or absent. Members are written as they
are drawn, `assimilation.member_batch` at a time, to a hidden folder beside it: after a kill, repeat
the command to draw only the missing members. The folder is removed at the end.
`--model=FILE_OR_URL` takes a saved model in place of the one in the work directory.
`--preset=fast|default|accurate|exact|reference` replaces the configuration's `sampler`, `guidance`,
`assimilation.paths` and `refinement`; "exact" draws all members together, with 512 evaluations each
(docs/guides/guidance.md).
`--background=FILE` takes forecasts in place of the configuration's background; if they have a
dimension `member`, `ensemble` says how they enter (docs/guides/cycling.md).
`--fit_inflation` first finds the inflation at which spread equals error on the validation period,
at the cost of about six analyses of it.
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import xarray as xr
from absl import flags, logging
from ml_collections import config_flags

from experiments.configuration import inputs
from experiments.configuration.analysis import analyse, with_fitted_inflation
from experiments.configuration.models import open_model
from experiments.configuration.settings import Settings, read
from experiments.process import cli
from slams_jax.assimilation.members import holds_members
from slams_jax.diffusion.presets import PRESETS, preset
from slams_jax.errors import InputError
from slams_jax.storage import locked, write_dataset
from slams_jax.training.devices import is_writer, wait_for_all

FLAGS = flags.FlagValues()
CONFIG = cli.config_flag(FLAGS)
OUTPUT = cli.path_flag(FLAGS, "output", "Analysis to write: a .nc file or a .zarr folder.")
MODEL = cli.model_flag(FLAGS)
BACKGROUND = flags.DEFINE_string(
    "background",
    None,
    "Forecasts in place of the configuration's background, with or without members: a file, a "
    "store, a pattern or a URL.",
    flag_values=FLAGS,
)
FIT = flags.DEFINE_bool(
    "fit_inflation",
    False,
    "First fit the inflation on the validation period.",
    flag_values=FLAGS,
)
PRESET = flags.DEFINE_enum(
    "preset",
    None,
    PRESETS,
    "Sampler, guidance, paths and refinement, in place of the configuration's.",
    flag_values=FLAGS,
)
DISTRIBUTED = cli.distributed_flag(FLAGS)


def main() -> None:
    """Analyse what the flags say."""
    settings = read(CONFIG.value)
    if OUTPUT.value is None:
        raise InputError("--output is missing: give the .nc or .zarr to write")
    path = _checked(OUTPUT.value)
    if FIT.value and BACKGROUND.value is not None:
        raise InputError(
            "--fit_inflation analyses the validation period, of which --background has no "
            "forecasts: leave one of the two out"
        )
    if PRESET.value is not None:
        settings = _with_preset(settings, PRESET.value)
    with _scratch(path) as scratch:
        analysis = run(
            settings,
            source=MODEL.value,
            background=BACKGROUND.value,
            fit=FIT.value,
            keep=scratch,
        )
        if is_writer():
            write_dataset(analysis, path, scratch)
        if scratch is not None:
            shutil.rmtree(scratch)
    wait_for_all("analysis")
    logging.info(
        "%s: %d members, %d times in %.1f s",
        path,
        analysis.sizes["member"],
        analysis.sizes["time"],
        analysis.attrs["seconds"],
    )
    if "divergence" in analysis.attrs:
        logging.info(
            "divergence of the paths from the posterior %(divergence).3g +- %(divergence_error).2g "
            "nats, %(divergence_per_observation).2g per observed value; %(effective_paths).1f "
            "effective paths",
            analysis.attrs,
        )
    if "acceptance" in analysis.attrs:
        logging.info("%.1f %% of the moves accepted", 100 * analysis.attrs["acceptance"])
    for d in json.loads(analysis.attrs["diagnostics"]):
        logging.info(
            "stream %(name)s: %(count)d values, misfit %(innovation_rms)s before, "
            "%(residual_rms).3g after, chi-squared %(chi_squared).2f each, "
            "%(degrees_of_freedom).0f degrees of freedom for signal",
            {**d, "innovation_rms": f"{d['innovation_rms'] or float('nan'):.3g}"},
        )


def run(
    settings: Settings,
    *,
    source: str | None = None,
    background: str | None = None,
    fit: bool = False,
    keep: Path | None = None,
) -> xr.Dataset:
    """The analysis of a configuration.

    Args:
        settings: the configuration.
        source: of the model, if not its work directory (`open_model`).
        background: file of forecasts in place of the configuration's background.
        fit: whether to fit the inflation first.
        keep: folder for the members as they are drawn (`slams_jax.assimilate`).

    Raises:
        InputError: data, a model or observations that do not fit together.
        RunError: members that are not finite.
    """
    data = inputs.load(settings)
    model = open_model(settings, data, source)
    if fit:
        settings = with_fitted_inflation(settings, data, model)
    analysis = analyse(settings, data, model, background=background, keep=keep)
    return analysis.assign_attrs(configuration=json.dumps(settings.raw))


def _with_preset(settings: Settings, name: str) -> Settings:
    """The settings with the options of a preset in place of their own.

    Raises:
        InputError: a flag of the command line that the preset would override.
    """
    replaced = ("sampler.", "guidance.", "refinement.", "assimilation.paths")
    for field in config_flags.get_override_values(FLAGS["config"]):
        if field.startswith(replaced):
            raise InputError(
                f"--preset={name} replaces config.{field}: leave one of the two flags out"
            )
    sampler, guidance, paths, refinement = preset(name)
    options = dataclasses.replace(settings.assimilation, paths=paths)
    raw = {
        "sampler": dataclasses.asdict(sampler),
        "guidance": dataclasses.asdict(guidance),
        "assimilation": {**settings.raw["assimilation"], "paths": paths},
        "refinement": dataclasses.asdict(refinement) if refinement else {"moves": 0},
    }
    return dataclasses.replace(
        settings,
        sampler=sampler,
        guidance=guidance,
        assimilation=options,
        refinement=refinement,
        raw={**settings.raw, **raw},
    )


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[Path | None]:
    """The folder of what is not yet the output, for this process alone; it stays if it has members.

    None where several processes draw together: they would have to agree on what is there.

    Raises:
        InputError: another process is writing the same output.
    """
    if jax.process_count() > 1:
        yield None
        return
    folder = path.absolute().with_name(f".{path.name}.members")
    with locked(folder):
        try:
            yield folder
        finally:
            if folder.is_dir() and not holds_members(folder):
                shutil.rmtree(folder)


def _checked(path: Path) -> Path:
    if path.suffix not in (".nc", ".zarr"):
        raise InputError(f"--output {path} must end in .nc or .zarr")
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"--output {path} is in a folder that cannot be written: {parent}")
    return path


if __name__ == "__main__":
    cli.run(main, FLAGS)
