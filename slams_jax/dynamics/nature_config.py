"""The settings of nature runs, checked before hours of integration and not after them."""

import dataclasses
from typing import ClassVar

from slams_jax.dynamics import lorenz63
from slams_jax.dynamics.held_suarez import Forcing, HeldSuarezConfig
from slams_jax.dynamics.kolmogorov import Kolmogorov
from slams_jax.dynamics.lorenz63 import Lorenz63
from slams_jax.dynamics.moist import LEVELS, Convection, MoistConfig
from slams_jax.errors import InputError, check_at_least, check_positive
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
class ImperfectForcing(Forcing):
    """The forcing of the model that makes the backgrounds.

    Its jets are too strong, and its friction and relaxation too weak.
    """

    friction_days: float = 1.15
    cooling_days: float = 45.0
    surface_cooling_days: float = 4.5
    meridional_contrast: float = 63.0
    vertical_contrast: float = 9.5


@dataclasses.dataclass(frozen=True)
class CycleConfig:
    """The daily analysis of radiosondes from which backgrounds start.

    Attributes:
        spin_up: last days of the run's spin-up, over which forecast and analysis settle.
        soundings: number of radiosondes a day, at fixed places.
        temperature_error: standard deviation, K.
        wind_error: of each component, m/s.
        pressure_error: of surface pressure, hPa.
        members: of the static ensemble of the analysis.
        interval: days between two members.
        variance: of the background's error over that of the static ensemble, in the analysis.
        radius: of localisation, km.
    """

    spin_up: int = 40
    soundings: int = 80
    temperature_error: float = 1.0
    wind_error: float = 2.0
    pressure_error: float = 1.0
    members: int = 80
    interval: int = 3
    variance: float = 0.2
    radius: float = 1500.0

    def __post_init__(self):
        check_at_least(self, spin_up=0, soundings=1, members=2, interval=1)
        check_positive(
            self, "temperature_error", "wind_error", "pressure_error", "variance", "radius"
        )


@dataclasses.dataclass(frozen=True)
class ForecastConfig(CycleConfig):
    """The imperfect model that makes the backgrounds, and its daily analysis of radiosondes.

    Attributes:
        lead: of the backgrounds, hours; a multiple of 24.
        forcing: of the imperfect model, in other respects that of the run.
    """

    lead: int = 24
    forcing: ImperfectForcing = dataclasses.field(default_factory=ImperfectForcing)

    def __post_init__(self):
        super().__post_init__()
        if self.lead < 24 or self.lead % 24:
            raise InputError(f"lead must be a multiple of 24 hours, got {self.lead}")

    @property
    def days_before(self) -> int:
        """Days of truth that the first background needs before its own."""
        return self.spin_up + self.lead // 24 - 1


@dataclasses.dataclass(frozen=True)
class HeldSuarezRun:
    """A Held-Suarez nature run, daily.

    Attributes:
        seed: of everything random.
        days: length.
        spin_up: days from rest that are discarded first.
        levels: of temperature, hPa.
        forecast: how the backgrounds are made.
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
    longwave_error: float = 5.0
    model: HeldSuarezConfig = dataclasses.field(default_factory=HeldSuarezConfig)
    stations: StationsConfig = dataclasses.field(default_factory=StationsConfig)
    sounder: SounderConfig = dataclasses.field(default_factory=SounderConfig)
    forecast: ForecastConfig = dataclasses.field(default_factory=ForecastConfig)
    cache: str = "cache"

    def __post_init__(self):
        _check_daily(self, self.forecast.days_before, "forecast.spin_up or forecast.lead")


@dataclasses.dataclass(frozen=True)
class GaugesConfig:
    """Rain gauges on land.

    Attributes:
        count: of gauges.
        clusters: regions where most of them gather; 0 for none.
        spread: standard deviation of the logarithm of their multiplicative error, whose mean is 1.
        trace: smallest amount that is reported, mm/day; less is 0.
        missing: share of reports that are missing, in spells.
    """

    count: int = 400
    clusters: int = 20
    spread: float = 0.5
    trace: float = 0.1
    missing: float = 0.05

    def __post_init__(self):
        if self.count < 1 or self.clusters < 0 or not 0 <= self.missing < 1:
            raise InputError(
                "count must be >= 1, clusters >= 0 and missing in [0, 1), got "
                f"{self.count}, {self.clusters} and {self.missing}"
            )
        if not self.spread > 0 or not self.trace >= 0:
            raise InputError(
                f"spread must be > 0 and trace >= 0, got {self.spread} and {self.trace}"
            )


@dataclasses.dataclass(frozen=True)
class RadiosondesConfig:
    """Temperature profiles on the levels of the state.

    Attributes:
        count: of places.
        error: standard deviation, K.
        missing: share of soundings that are missing, in spells.
    """

    count: int = 40
    error: float = 0.7
    missing: float = 0.05

    def __post_init__(self):
        if self.count < 1 or not self.error > 0 or not 0 <= self.missing < 1:
            raise InputError(
                "count must be >= 1, error > 0 and missing in [0, 1), got "
                f"{self.count}, {self.error} and {self.missing}"
            )


@dataclasses.dataclass(frozen=True)
class ImperfectConvection(Convection):
    """Convection of the model that makes the backgrounds: too slow, and mixing too little."""

    relaxation_hours: float = 12.0
    entrainment: float = 0.3


@dataclasses.dataclass(frozen=True)
class MoistForecastConfig(CycleConfig):
    """The imperfect model that makes the backgrounds, and its daily analysis of radiosondes.

    Attributes:
        convection: of the imperfect model, in other respects that of the run.
    """

    spin_up: int = 20
    interval: int = 1
    convection: ImperfectConvection = dataclasses.field(default_factory=ImperfectConvection)


@dataclasses.dataclass(frozen=True)
class MoistRun:
    """A nature run of the moist atmosphere, daily.

    Attributes:
        seed: of everything random.
        days: length, from 2000-01-01.
        spin_up: days from the spun-up restart that are discarded first, over which seeds part.
        levels: of temperature, hPa.
        longwave_error: standard deviation of outgoing longwave radiation, W/m².
        model: the atmosphere.
        gauges: the rain gauges.
        stations: the surface network, on land.
        radiosondes: the profiles.
        forecast: how the backgrounds are made.
        cache: folder that holds the run.
    """

    system: ClassVar[str] = "moist"
    seed: int = 0
    days: int = 450
    spin_up: int = 60
    levels: tuple[float, ...] = LEVELS
    longwave_error: float = 5.0
    model: MoistConfig = dataclasses.field(default_factory=MoistConfig)
    gauges: GaugesConfig = dataclasses.field(default_factory=GaugesConfig)
    stations: StationsConfig = dataclasses.field(default_factory=StationsConfig)
    radiosondes: RadiosondesConfig = dataclasses.field(default_factory=RadiosondesConfig)
    forecast: MoistForecastConfig = dataclasses.field(default_factory=MoistForecastConfig)
    cache: str = "cache"

    def __post_init__(self):
        _check_daily(self, self.forecast.spin_up, "forecast.spin_up")
        if len(self.levels) < 2:
            raise InputError(f"levels must be at least two, got {self.levels}")


def _check_daily(run: HeldSuarezRun | MoistRun, before: int, shorter: str) -> None:
    """Refuse a run whose backgrounds need more days `before` its own than it spins up."""
    if run.days < 3:
        raise InputError(f"days must be >= 3, got {run.days}")
    if run.spin_up < before:
        raise InputError(
            f"spin_up must be at least {before} days, got {run.spin_up}: raise it, or lower "
            f"{shorter}"
        )
    check_positive(run, "longwave_error")


@dataclasses.dataclass(frozen=True)
class ImperfectLorenz63(Lorenz63):
    """The model that makes the backgrounds."""

    rho: float = lorenz63.IMPERFECT.rho


@dataclasses.dataclass(frozen=True)
class Lorenz63Forecast:
    """The imperfect model that makes the backgrounds, and its analysis at every time.

    Attributes:
        error: standard deviation of the observations of each variable.
        variance: of the background's error over that of the climate, in the analysis.
        model: the parameters of the imperfect model.
    """

    error: float = 4.0
    variance: float = 0.1
    model: ImperfectLorenz63 = dataclasses.field(default_factory=ImperfectLorenz63)


@dataclasses.dataclass(frozen=True)
class Lorenz63Run:
    """A Lorenz-63 nature run; one interval is called a day.

    Attributes:
        seed: of everything random.
        days: number of intervals.
        spin_up: intervals that are discarded first.
        dt: time step.
        substeps: time steps in an interval.
        noise: each time step adds N(0, noise² dt) to each variable; 0 for none.
        model: the parameters.
        forecast: how the backgrounds are made.
        cache: folder that holds the run.
    """

    system: ClassVar[str] = "lorenz63"
    seed: int = 0
    days: int = 10000
    spin_up: int = 200
    dt: float = 0.01
    substeps: int = 10
    noise: float = 0.0
    model: Lorenz63 = dataclasses.field(default_factory=Lorenz63)
    forecast: Lorenz63Forecast = dataclasses.field(default_factory=Lorenz63Forecast)
    cache: str = "cache"

    def __post_init__(self):
        lorenz63.check_noise(self.noise)


@dataclasses.dataclass(frozen=True)
class KolmogorovRun:
    """Velocities of a Kolmogorov flow; one interval is called a day.

    Attributes:
        seed: of everything random.
        days: number of intervals.
        spin_up: intervals that are discarded first.
        points: along each side, of the means over cells that are kept.
        model: the flow.
        cache: folder that holds the run.

    Raises:
        InputError: a value out of range, or points that do not divide those of the model.
    """

    system: ClassVar[str] = "kolmogorov"
    seed: int = 0
    days: int = 2000
    spin_up: int = 200
    points: int = 64
    model: Kolmogorov = dataclasses.field(default_factory=Kolmogorov)
    cache: str = "cache"

    def __post_init__(self):
        check_at_least(self, days=3, spin_up=1, points=4)
        if self.model.points % self.points:
            raise InputError(
                f"{self.model.points} points cannot be averaged to {self.points}: choose a divisor"
            )


NatureRun = HeldSuarezRun | KolmogorovRun | Lorenz63Run | MoistRun
