"""The settings of nature runs, checked before hours of integration and not after them."""

import dataclasses
from typing import ClassVar

from slams_jax.dynamics.held_suarez import HeldSuarezConfig
from slams_jax.dynamics.lorenz63 import Lorenz63
from slams_jax.errors import InputError
from slams_jax.observe.satellite import SOUNDER_PEAKS
from slams_jax.schema import SLAMS_LEVELS


@dataclasses.dataclass(frozen=True)
class StationsConfig:
    """Surface stations that measure temperature.

    Attributes:
        count: of stations.
        clusters: regions where most of them gather; 0 for none.
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
class SounderConfig:
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
        seed: of everything random.
        days: length.
        spin_up: days from rest that are discarded first.
        levels: of temperature, hPa.
        amplitude: of the background's initial perturbations.
        longwave_error: standard deviation of outgoing longwave radiation, W/m².
        model: the atmosphere.
        stations: the surface network.
        sounder: the satellite's sounder.
        cache: folder that holds the run.
    """

    system: ClassVar[str] = "held_suarez"
    seed: int = 0
    days: int = 450
    spin_up: int = 150
    levels: tuple[float, ...] = SLAMS_LEVELS
    amplitude: float = 0.24
    longwave_error: float = 5.0
    model: HeldSuarezConfig = dataclasses.field(default_factory=HeldSuarezConfig)
    stations: StationsConfig = dataclasses.field(default_factory=StationsConfig)
    sounder: SounderConfig = dataclasses.field(default_factory=SounderConfig)
    cache: str = "cache"

    def __post_init__(self):
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
        seed: of everything random.
        days: number of intervals.
        spin_up: intervals that are discarded first.
        dt: time step.
        substeps: time steps in an interval.
        amplitude: of the background's initial perturbations.
        model: the parameters.
        cache: folder that holds the run.
    """

    system: ClassVar[str] = "lorenz63"
    seed: int = 0
    days: int = 10000
    spin_up: int = 200
    dt: float = 0.01
    substeps: int = 10
    amplitude: float = 0.2
    model: Lorenz63 = dataclasses.field(default_factory=Lorenz63)
    cache: str = "cache"


NatureRun = HeldSuarezRun | Lorenz63Run
