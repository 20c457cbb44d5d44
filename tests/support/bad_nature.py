"""Nature runs that cannot be: more of the corpus of `bad_data`."""

import sys
from pathlib import Path
from unittest import mock

from slams_jax.dynamics import (
    Convection,
    GaugesConfig,
    MoistConfig,
    MoistForecastConfig,
    MoistRun,
    RadiosondesConfig,
    moist,
)
from support.bad_data import Attempt, Bad


def _without_jcm(folder: Path) -> Attempt:
    def attempt():
        with mock.patch.dict(sys.modules, {"jcm.forcing": None}):
            # Of a model that no test has built.
            moist.moist_atmosphere(MoistConfig(convection=Convection(7.0)))

    return attempt


def _settings(make):
    return lambda folder: make


CORPUS = [
    Bad("Nature runs", what, make, says)
    for what, make, says in (
        (
            "a moist atmosphere without its package",
            _without_jcm,
            r"pip install 'slams-jax\[moist\]'",
        ),
        (
            "another truncation of the moist atmosphere",
            _settings(lambda: MoistConfig(truncation=42)),
            "truncation must be 21 or 31, got 42",
        ),
        (
            "convection that never acts",
            _settings(lambda: Convection(relaxation_hours=0.0)),
            "relaxation_hours of convection must be a positive number",
        ),
        (
            "a moist run shorter than its cycle's spin-up",
            _settings(lambda: MoistRun(spin_up=5)),
            "raise it, or lower forecast.spin_up",
        ),
        (
            "a single level",
            _settings(lambda: MoistRun(levels=(500.0,))),
            "levels must be at least two",
        ),
        (
            "rain gauges without error",
            _settings(lambda: GaugesConfig(spread=0.0)),
            "spread must be > 0 and trace >= 0",
        ),
        (
            "no radiosondes",
            _settings(lambda: RadiosondesConfig(count=0)),
            "count must be >= 1",
        ),
        (
            "a cycle without radiosondes",
            _settings(lambda: MoistForecastConfig(soundings=0)),
            "soundings must be at least 1",
        ),
    )
]
