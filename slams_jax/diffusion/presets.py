"""Settings of guidance, and presets that trade cost against accuracy."""

import dataclasses
from typing import NamedTuple

from slams_jax.diffusion.guidance import Rule, guide
from slams_jax.diffusion.refinement import RefinementConfig
from slams_jax.diffusion.sampler import SamplerConfig
from slams_jax.diffusion.schedule import CosineSchedule
from slams_jax.errors import InputError

PRESETS = ("fast", "default", "accurate", "exact", "reference")


@dataclasses.dataclass(frozen=True)
class GuidanceConfig:
    """How observations guide the reverse SDE; see `slams_jax.diffusion.guide`."""

    rule: Rule = "gaussian"
    gamma: float = 1e-2
    iterations: int = 30
    tolerance: float = 1e-3
    outer: int = 1
    jacobian: bool = True

    def __post_init__(self):
        # `guide` does the checks; calling it here reports errors before anything is computed.
        identity = lambda x, _: x
        options = dataclasses.asdict(self)
        guide(identity, identity, CosineSchedule(), covariance=identity, **options)

    @property
    def derivatives(self) -> int:
        """Largest number of products with the network's Jacobian per guided evaluation."""
        counts = {"sda": 1, "dps": 1, "pigdm": int(self.jacobian), "tmpd": 2}
        return counts.get(self.rule, self.iterations if self.rule == "mmps" else 0)


class Preset(NamedTuple):
    """The options of `slams_jax.assimilate` that say how members are drawn, by their names.

    `assimilate(..., **preset("exact")._asdict())` takes them all.

    Attributes:
        sampler: how the reverse SDE is solved.
        guidance: how observations enter it.
        paths: guided paths for each member; of more than one, all are resampled by their weights.
        refinement: Metropolis moves of each member; None for none.
    """

    sampler: SamplerConfig
    guidance: GuidanceConfig
    paths: int = 1
    refinement: RefinementConfig | None = None


def preset(name: str) -> Preset:
    """The options of a preset; `docs/calibration.md` compares them.

    "fast" takes 16 evaluations per member, "default" 32 and "accurate" 128, without derivatives of
    the network. "exact" takes 512, without derivatives too: two weighted paths of 64 steps and 12
    Metropolis moves of 32, for few observations and a prior or operators far from Gaussian; all
    members are drawn together. "reference" is SLAMS as published: 1024 evaluations and as many
    derivatives.

    Raises:
        InputError: an unknown name.
    """
    presets = {
        "fast": Preset(SamplerConfig(steps=16), GuidanceConfig(iterations=20)),
        "default": Preset(SamplerConfig(), GuidanceConfig()),
        "accurate": Preset(SamplerConfig(steps=128), GuidanceConfig(iterations=60)),
        "exact": Preset(
            SamplerConfig(steps=64), GuidanceConfig(), paths=2, refinement=RefinementConfig(12)
        ),
        "reference": Preset(
            SamplerConfig(solver="pc", steps=512, grid="uniform"), GuidanceConfig("sda")
        ),
    }
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}: choose from {PRESETS}")
    return presets[name]
