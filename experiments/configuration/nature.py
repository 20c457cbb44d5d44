"""The settings of nature runs: what is generated, checked before it is."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.configuration.settings import build
from slams_jax.dynamics import HeldSuarezConfig, Lorenz63
from slams_jax.errors import InputError
from slams_jax.observe.satellite import SOUNDER_PEAKS
from slams_jax.schema import SLAMS_LEVELS


@dataclasses.dataclass(frozen=True)
class StationSettings:
    """Surface stations that measure temperature.

    Attributes:
        count: of stations.
        clusters: regions in which most of them gather; 0 for none.
        error: standard deviation, K.
        missing: share of reports that are missing, in spells.
    """

    count: int = 150
    clusters: int = 12
    error: float = 0.5
    missing: float = 0.05

    def __post_init__(self):
        if self.count < 1 or self.clusters < 0 or not self.error > 0 or not 0 <= self.missing < 1:
            raise InputError(
                "count must be >= 1, clusters >= 0, error > 0 and missing in [0, 1), got "
                f"{self.count}, {self.clusters}, {self.error} and {self.missing}"
            )


@dataclasses.dataclass(frozen=True)
class SounderSettings:
    """A microwave temperature sounder.

    Attributes:
        peaks: of its weighting functions, hPa.
        error: standard deviation of each channel, K.
    """

    peaks: tuple[float, ...] = SOUNDER_PEAKS
    error: tuple[float, ...] = (0.5, 0.4, 0.3, 0.3, 0.3, 0.4)

    def __post_init__(self):
        if len(self.peaks) != len(self.error):
            raise InputError(
                f"peaks and error must be as many, got {len(self.peaks)} and {len(self.error)}"
            )
        if not all(e > 0 for e in self.error):
            raise InputError(f"every error must be positive, got {self.error}")


@dataclasses.dataclass(frozen=True)
class HeldSuarezRun:
    """A Held-Suarez nature run, daily.

    Attributes:
        seed: decides everything that is drawn.
        days: length.
        spin_up: days from rest that are thrown away first.
        levels: of temperature, hPa.
        amplitude: of the background's initial perturbations.
        longwave_error: standard deviation of outgoing longwave radiation, W/m².
        model: the atmosphere.
        stations: the surface network.
        sounder: the satellite's sounder.
        cache: folder that the run is put in.
    """

    seed: int = 0
    days: int = 450
    spin_up: int = 150
    levels: tuple[float, ...] = SLAMS_LEVELS
    amplitude: float = 0.24
    longwave_error: float = 5.0
    model: HeldSuarezConfig = dataclasses.field(default_factory=HeldSuarezConfig)
    stations: StationSettings = dataclasses.field(default_factory=StationSettings)
    sounder: SounderSettings = dataclasses.field(default_factory=SounderSettings)
    cache: str = "cache"

    def __post_init__(self):
        # Before hours of integration, not after them.
        if self.days < 3 or self.spin_up < 0 or not self.amplitude > 0:
            raise InputError(
                f"days must be >= 3, spin_up >= 0 and amplitude > 0, got {self.days}, "
                f"{self.spin_up} and {self.amplitude}"
            )
        if not self.longwave_error > 0:
            raise InputError(f"longwave_error must be positive, got {self.longwave_error}")


@dataclasses.dataclass(frozen=True)
class Lorenz63Run:
    """A Lorenz-63 nature run; one interval is called a day.

    Attributes:
        seed: decides everything that is drawn.
        days: number of intervals.
        spin_up: intervals that are thrown away first.
        dt: time step.
        substeps: time steps in an interval.
        amplitude: of the background's initial perturbations.
        model: the parameters.
        cache: folder that the run is put in.
    """

    seed: int = 0
    days: int = 10000
    spin_up: int = 200
    dt: float = 0.01
    substeps: int = 10
    amplitude: float = 0.2
    model: Lorenz63 = dataclasses.field(default_factory=Lorenz63)
    cache: str = "cache"


NatureRun = HeldSuarezRun | Lorenz63Run
SYSTEMS = {
    "held_suarez": (
        HeldSuarezRun,
        {"model": HeldSuarezConfig, "stations": StationSettings, "sounder": SounderSettings},
    ),
    "lorenz63": (Lorenz63Run, {"model": Lorenz63}),
}


def read(values: Mapping[str, Any]) -> NatureRun:
    """The checked settings of a nature run; `system` says of which kind.

    Raises:
        InputError: an unknown system or field, or a value out of range.
    """
    rest = dict(values)
    system = rest.pop("system", None)
    if system not in SYSTEMS:
        raise InputError(f"nature.system must be one of {sorted(SYSTEMS)}, got {system!r}")
    cls, parts = SYSTEMS[system]
    built = {
        name: build(part, rest.pop(name, {}), f"nature.{name}") for name, part in parts.items()
    }
    return build(cls, rest, "nature", **built)
