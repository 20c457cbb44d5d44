"""Options of a training run, in groups: how often what is due, divergence, devices."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from slams_jax.errors import InputError, check_at_least


@dataclasses.dataclass(frozen=True)
class IntervalConfig:
    """Steps between the things that a run does now and then, and all of them at its last step.

    Attributes:
        log_every: between records and progress lines.
        checkpoint_every: between checkpoints: the most that a kill costs.
        validate_every: between validations; None for `checkpoint_every`.

    Raises:
        InputError: an interval below 1.
    """

    log_every: int = 100
    checkpoint_every: int = 1000
    validate_every: int | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and value < 1:
                raise InputError(f"{field.name} must be at least 1, got {value}")


@dataclasses.dataclass(frozen=True)
class DivergenceConfig:
    """What counts as divergence, and what a run does about it.

    Attributes:
        rollbacks: how often, in the whole run, a loss that diverges takes it back to the last good
            checkpoint, to continue with the data that follow; each is logged and counted in the
            records. With 0 the run stops.
        loss_limit: a loss above it has diverged, as one that is not finite has; None for no limit.

    Raises:
        InputError: a negative number of rollbacks, or a limit that is not positive.
    """

    rollbacks: int = 0
    loss_limit: float | None = None

    def __post_init__(self):
        check_at_least(self, rollbacks=0)
        if self.loss_limit is not None and not self.loss_limit > 0:
            raise InputError(f"loss_limit must be positive, or None, got {self.loss_limit}")

    @property
    def limit(self) -> float:
        """The largest loss that has not diverged."""
        return math.inf if self.loss_limit is None else self.loss_limit


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
    """How a step is computed; but for rounding, none of it changes what is learnt.

    Attributes:
        devices: to train on; None for all, fewer where the batch does not divide over them.
        accumulate: parts that each batch is taken in, one after the other, as in `make_step`.
        sharded: whether the devices share the state among them.
        compiler_options: of XLA, for the step.

    Raises:
        InputError: fewer than one part.
    """

    devices: Sequence[jax.Device] | None = None
    accumulate: int = 1
    sharded: bool = False
    compiler_options: Mapping[str, Any] | None = None

    def __post_init__(self):
        check_at_least(self, accumulate=1)


class Due(NamedTuple):
    """What is due at a step."""

    log: bool
    validate: bool
    checkpoint: bool


class Plan(NamedTuple):
    """The length of a run, what is due when in it, and what becomes of it if it diverges."""

    steps: int
    intervals: IntervalConfig
    divergence: DivergenceConfig

    def due(self, step: int) -> Due:
        """What is due at `step`: everything at the last one."""
        every = self.intervals
        validate_every = every.validate_every or every.checkpoint_every
        return Due(
            *(
                step % interval == 0 or step == self.steps
                for interval in (every.log_every, validate_every, every.checkpoint_every)
            )
        )
