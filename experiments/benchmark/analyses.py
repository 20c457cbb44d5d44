"""Whole draws: an ensemble against the reference's sampler, memory, and what diffrax costs."""

import dataclasses
import functools
import time
from collections.abc import Iterator
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.machine import Machine, load, medians, peak_of
from experiments.benchmark.networks import (
    BLOCK,
    LATENT,
    SCHEDULE,
    compile_program,
    guided_denoiser,
    observe,
)
from slams_jax.diffusion import (
    SamplerConfig,
    evaluations,
    guide,
    sample,
    sample_ensemble,
    time_grid,
)
from slams_jax.diffusion.compose import trajectory_denoiser
from slams_jax.diffusion.presets import GuidanceConfig, preset
from slams_jax.gaussian import fit_prior
from slams_jax.models import score
from slams_jax.networks import compiler_options
from slams_jax.observe import whitened_innovations

# The same network read as a velocity: untrained it predicts zero, and draws are finite.
FINITE = dataclasses.replace(LATENT, prediction="v")
FRAMES, MEMBERS = 29, 16
COARSE, FINE = (32, 64), (120, 240)
MEMORY = 4e9  # bytes: what 29 frames of 120 x 240 x 5 may take
# (windows at a time, whether their activations are computed again)
CHUNKS = ((1, True), (3, True), (5, True), (9, True), (25, True), (1, False), (5, False))
QUICK_CHUNKS = ((5, True), (5, False))


def _problem(shape: tuple[int, int], frames: int = FRAMES):
    """Parameters and observations."""
    rng = np.random.default_rng(0)
    coarse = (frames, shape[0] // BLOCK, shape[1] // BLOCK, FINITE.channels)
    values = rng.normal(size=coarse).astype(np.float32)
    return score.init(FINITE, jax.random.key(0), shape), observe(values)


def _analysis(sampler: SamplerConfig, guidance: GuidanceConfig, members: int):
    """The draws of an ensemble, one at a time, as a function to compile."""

    def analyse(key, params, stream, prior):
        window = score.window_denoiser(FINITE, SCHEDULE, params)
        denoiser = trajectory_denoiser(window, FINITE.window)
        innovations = lambda z, extra: whitened_innovations((stream,), z, lambda v: v, extra)
        posterior = guide(
            denoiser,
            innovations,
            SCHEDULE,
            covariance=prior.over(FRAMES).solve,
            **dataclasses.asdict(guidance),
        )
        shape = (FRAMES, *COARSE, FINITE.channels)
        draw = lambda key: sample(key, posterior, shape, SCHEDULE, sampler)
        return sample_ensemble(key, draw, members, batch=1)

    return analyse


def run_ensembles(machine: Machine, members: int, steps: int) -> Iterator[dict[str, Any]]:
    """29 frames of 32 x 64, one row for the default and one for the reference's sampler.

    The default draws `members` and its time is multiplied to 16; the reference's draws one with
    `steps` of its 512 steps, which is multiplied in both. All evaluations of a draw cost the same.
    """
    params, stream = _problem(COARSE)
    rng = np.random.default_rng(1)
    prior = fit_prior(
        rng.normal(size=(64, *COARSE, FINITE.channels)).astype(np.float32), periodic=True, rank=20
    )
    arguments = (jax.random.key(0), params, stream, prior)
    seconds = {}
    for name, drawn in (("default", members), ("reference", 1)):
        sampler, guidance, *_ = preset(name)
        taken = dataclasses.replace(sampler, steps=steps) if name == "reference" else sampler
        whole, count = evaluations(sampler), evaluations(taken)
        assert whole is not None
        assert count is not None
        compiled, compile_seconds = compile_program(_analysis(taken, guidance, drawn), *arguments)
        begun = time.perf_counter()
        peak = peak_of(functools.partial(_run, compiled, arguments))
        measured = time.perf_counter() - begun
        factor = MEMBERS / drawn * whole / count
        seconds[name] = measured * factor
        faster = seconds["reference"] / seconds["default"] if len(seconds) == 2 else None
        yield {
            "case": f"ensemble of {MEMBERS}, {FRAMES} frames of 32 x 64 x 5, {name} sampler",
            "seconds": measured * factor,
            "percent_of_peak": None,
            "throughput_over_pytorch": None,
            "measured_seconds": measured,
            "multiplied_by": factor,
            "evaluations": whole * MEMBERS,
            "derivative_evaluations": whole * MEMBERS * guidance.derivatives,
            "measured_evaluations": count * drawn,
            "default_faster_by": faster,
            "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
            "process_bytes": peak,
            "compile_seconds": compile_seconds,
            "dtype": "float32",
            "device": machine.device,
            "load": load(),
        }


def _run(compiled: Any, arguments: tuple[Any, ...]) -> Any:
    return jax.block_until_ready(compiled(*arguments))


def run_memory(machine: Machine, *, quick: bool) -> Iterator[dict[str, Any]]:
    """One guided evaluation of 29 frames of 120 x 240 x 5, in chunks of windows."""
    params, stream = _problem(FINE)
    x = jax.random.normal(jax.random.key(0), (FRAMES, *FINE, FINITE.channels))
    arguments = (params, stream, x, jnp.float32(0.5))
    for chunk, remat in QUICK_CHUNKS if quick else CHUNKS:

        def evaluate(params, stream, x, t, chunk=chunk, remat=remat):
            return guided_denoiser(FINITE, params, stream, chunk=chunk, remat=remat)(x, t)

        compiled, compile_seconds = compile_program(evaluate, *arguments)
        needed = compiled.memory_analysis().temp_size_in_bytes
        begun = time.perf_counter()
        peak = peak_of(functools.partial(_run, compiled, arguments))
        seconds = time.perf_counter() - begun
        name = "recomputed" if remat else "kept"
        yield {
            "case": f"guided, 29 frames of 120 x 240 x 5, {chunk} windows at a time, {name}",
            "seconds": seconds,
            "percent_of_peak": None,
            "throughput_over_pytorch": None,
            "window_chunk": chunk,
            "remat": remat,
            "temporary_bytes": needed,
            "process_bytes": peak,
            "below_4_gb": max(needed, peak or 0) < MEMORY,
            "compile_seconds": compile_seconds,
            "dtype": "float32",
            "device": machine.device,
            "load": load(),
        }


def run_overhead(machine: Machine, repetitions: int) -> dict[str, Any]:
    """A draw of one window of 32 x 64 by "dpmpp_2m", against the same as a plain scan."""
    params = score.init(FINITE, jax.random.key(0), COARSE)
    shape, config = (FINITE.window, *COARSE, FINITE.channels), SamplerConfig("dpmpp_2m")
    options = compiler_options() or None
    denoiser = lambda params: trajectory_denoiser(
        score.window_denoiser(FINITE, SCHEDULE, params), FINITE.window
    )
    ours = jax.jit(
        lambda key, params: sample(key, denoiser(params), shape, SCHEDULE, config),
        compiler_options=options,
    )
    plain = jax.jit(
        lambda key, params: scan(key, denoiser(params), shape, config.steps),
        compiler_options=options,
    )
    key = jax.random.key(0)
    difference = float(jnp.max(jnp.abs(ours(key, params) - plain(key, params))))
    seconds, by_scan = medians(
        [lambda f=f: jax.block_until_ready(f(key, params)) for f in (ours, plain)], repetitions
    )
    return {
        "case": "draw of 5 frames of 32 x 64 x 5 by dpmpp_2m, 32 steps, against a scan",
        "seconds": seconds,
        "percent_of_peak": None,
        "throughput_over_pytorch": None,
        "scan_seconds": by_scan,
        "percent_over_scan": 100.0 * (seconds / by_scan - 1.0),
        "largest_difference": difference,
        "dtype": "float32",
        "device": machine.device,
        "load": load(),
    }


def scan(key: Any, denoiser: Any, shape: tuple[int, ...], steps: int) -> jax.Array:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022) by `lax.scan`, with the numbers that `sample` draws."""
    key_start, key_noise = jax.random.split(key)
    path = diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct(shape, jnp.float32), key_noise)
    s = time_grid(SCHEDULE, "log_snr", steps)
    t, alpha, sigma = 1.0 - s, SCHEDULE.alpha(1.0 - s), SCHEDULE.sigma(1.0 - s)
    h = jnp.diff(SCHEDULE.log_snr(t))

    def step(carry, i):
        x, last = carry
        now = denoiser(x, t[i])
        back = jnp.where(i == 0, 0.0, h[i] / h[i - 1])
        estimate = now + 0.5 * back * (now - last)
        white: Any = path.evaluate(s[i], s[i + 1])
        decay = -jnp.expm1(-2.0 * h[i])
        white = white / jnp.sqrt(s[i + 1] - s[i])
        x = sigma[i + 1] / sigma[i] * jnp.exp(-h[i]) * x + alpha[i + 1] * decay * estimate
        return (x + sigma[i + 1] * jnp.sqrt(decay) * white, now), None

    start = SCHEDULE.sigma(jnp.ones(())) * jax.random.normal(key_start, shape)
    return jax.lax.scan(step, (start, jnp.zeros_like(start)), jnp.arange(steps))[0][0]
