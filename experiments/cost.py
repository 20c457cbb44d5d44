"""What training and analyses need on many devices, on paper, as the tables of docs/scaling.md.

    python -m experiments.cost [--utilisation=0.3]

`slams_jax.cost` is the model: operations, memory and bytes between devices from the shapes of the
networks, against the peak figures of a device. Nothing is run.
"""

from typing import Any

from absl import flags

from experiments.process import cli
from slams_jax.errors import InputError
from slams_jax.models import cost
from slams_jax.models.score import ScoreConfig
from slams_jax.verify.report import Cell, Table, markdown

FLAGS = flags.FlagValues()
UTILISATION = flags.DEFINE_float(
    "utilisation", 0.3, "Share of a device's peak that is reached, up to 1.", flag_values=FLAGS
)

# What is diffused: name, grid of the state and channels, compression, network.
LATENT: dict[str, Any] = dict(window=5, widths=(96, 192), blocks=3, compute="bfloat16")
PIXEL: dict[str, Any] = dict(window=5, widths=(64, 128, 256), blocks=3, compute="bfloat16")
CASES = (
    ("1.5°, 10 channels, latent / 2", (120, 240, 10), 2, ScoreConfig(channels=12, **LATENT)),
    ("1.5°, 10 channels, pixel", (120, 240, 10), 1, ScoreConfig(channels=10, **PIXEL)),
    ("0.25°, 69 channels, latent / 4", (720, 1440, 69), 4, ScoreConfig(channels=96, **LATENT)),
    ("0.25°, 69 channels, pixel", (720, 1440, 69), 1, ScoreConfig(channels=69, **PIXEL)),
)
FRAMES, MEMBERS, EVALUATIONS = 29, 16, 32
MOST = 8  # windows on a device in training


def main() -> None:
    """Print the tables."""
    share = UTILISATION.value
    if not 0.0 < share <= 1.0:
        raise InputError(f"--utilisation must be in (0, 1], got {share}")
    print("\n".join(map(markdown, (networks(), training(share), analyses(share)))), end="")


def networks() -> Table:
    """One evaluation of each network."""
    rows = []
    for name, state, compression, config in CASES:
        shape = _shape(state, compression)
        one = cost.network_cost(config, shape)
        rows.append(
            [
                name,
                f"{shape[0]} x {shape[1]}",
                f"{one.parameters / 1e6:.1f} M",
                f"{one.flops / 1e9:.1f}",
                f"{2 * one.kept / 1e9:.2f}",
            ]
        )
    header = ("case", "grid", "parameters", "GFLOP a window", "kept for the gradient, GB a window")
    return Table("Networks", header, rows)


def training(utilisation: float) -> Table:
    """Throughput and memory of training, with as many windows on each device as fit."""
    rows: list[list[Cell]] = []
    for name, state, compression, config in CASES:
        shape = _shape(state, compression)
        for chip in cost.CHIPS:
            own = _fitting(config, shape, chip)
            for devices in (1, 8, 64, 256):
                if not own:
                    rows.append([name, chip.name, devices, "does not fit", *[""] * 5])
                    continue
                step = cost.training_cost(
                    config, shape, batch=own * devices, devices=devices, sharded=devices > 1
                )
                seconds = cost.step_seconds(step, chip, devices=devices, utilisation=utilisation)
                talk = cost.sum_seconds(step, chip, devices=devices) / seconds
                rows.append(
                    [
                        name,
                        chip.name,
                        devices,
                        own * devices,
                        f"{step.memory / 1e9:.1f}",
                        f"{step.sent / 1e9:.3f}",
                        f"{seconds:.3g}",
                        f"{own * devices / seconds:.3g}",
                        f"{100 * talk:.1f} %",
                    ]
                )
    header = ("case", "device", "devices", "batch", "GB a device", "sent, GB a step")
    return Table("Training", (*header, "s a step", "windows/s", "for sums"), rows)


def analyses(utilisation: float) -> Table:
    """Memory of one member over devices that share its latitudes, and the time of an ensemble."""
    chip = cost.CHIPS[0]
    rows = []
    for name, state, compression, config in CASES:
        shape = _shape(state, compression)
        memory = [
            cost.analysis_memory(config, shape, state, frames=FRAMES, windows=1, space=space)
            for space in (1, 8, 64)
        ]
        windows = MEMBERS * EVALUATIONS * (FRAMES - config.window + 1) // 8
        work = cost.evaluation_cost(config, shape, windows)
        seconds = cost.step_seconds(work, chip, devices=8, utilisation=utilisation)
        rows.append([name, *(f"{m / 1e9:.1f}" for m in memory), f"{seconds:.3g}"])
    ensemble = f"s for {MEMBERS} members of {FRAMES} frames on 8 H100"
    return Table("Analyses", ("case", "GB a device, space = 1", "8", "64", ensemble), rows)


def _shape(state: tuple[int, int, int], compression: int) -> tuple[int, int]:
    return state[0] // compression, state[1] // compression


def _fitting(config: ScoreConfig, shape: tuple[int, int], chip: cost.Chip) -> int:
    """Windows that fit on a device, at most `MOST`; 0 if none does."""
    memory = lambda batch: cost.training_cost(config, shape, batch=batch).memory
    return next((n for n in range(MOST, 0, -1) if memory(n) < 0.9 * chip.memory), 0)


if __name__ == "__main__":
    cli.run(main, FLAGS)
