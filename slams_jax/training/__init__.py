"""Training: one jitted step over all devices, a loop that resumes exactly, checked checkpoints."""

from slams_jax.training.checkpoint import restore_model, restore_run
from slams_jax.training.devices import (
    batch_mesh,
    batched,
    data_mesh,
    replicated,
    shard_batch,
    state_spec,
)
from slams_jax.training.loop import fit
from slams_jax.training.metrics import read_metrics
from slams_jax.training.options import DeviceConfig, DivergenceConfig, IntervalConfig
from slams_jax.training.state import (
    OptimiserConfig,
    TrainState,
    init_state,
    learning_rate_schedule,
    make_optimiser,
)
from slams_jax.training.step import make_step

__all__ = [
    "DeviceConfig",
    "DivergenceConfig",
    "IntervalConfig",
    "OptimiserConfig",
    "TrainState",
    "batch_mesh",
    "batched",
    "data_mesh",
    "fit",
    "init_state",
    "learning_rate_schedule",
    "make_optimiser",
    "make_step",
    "read_metrics",
    "replicated",
    "restore_model",
    "restore_run",
    "shard_batch",
    "state_spec",
]
