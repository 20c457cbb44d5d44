r"""Linear filter and smoother in space and time, and linear regression on gridded fields.

The coefficients a of the state in EOFs, for each zonal wavenumber of a periodic grid, follow a
vector autoregression of first order with inputs: the coefficients b of the background and of other
gridded fields,

    a_t = A a_{t-1} + B_0 b_t + B_- b_{t-1} + B_+ b_{t+1} + q_t,     q_t ~ N(0, Q).

It is p(a_t | a_{t-1}, inputs at t - 1, t and t + 1), whatever the inputs' errors and however these
are correlated in time: no background need be unbiased, or independent of earlier ones. The first
time has neither a_{t-1} nor b_{t-1}, the last one no b_{t+1}, and regressions of their own; so the
analysis of the last time uses the past alone. Observations enter by x = x(v), v the whitened q,
which minimises

    J(v) = 1/2 |v|^2 + 1/2 sum_k |W_k (y_k - H_k(x(v)))|^2,    W_k^T W_k = R_k^-1,

by conjugate gradients; members are solutions for perturbed v and y, draws from the posterior where
H is linear (Burgers et al. 1998, MWR 126).

The matrices follow from the joint covariance of state, background error and other inputs at the
three times. It is shrunk: covariances between different EOFs, and those of the state with the
background's error, are multiplied by factors that validation data choose.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from slams_jax.aliases import PRNGKey, Trajectory
from slams_jax.baselines.optimal_interpolation import gauss_newton, perturbed
from slams_jax.baselines.protocol import BACKGROUND, Ensemble, Sees, Window
from slams_jax.errors import InputError
from slams_jax.gaussian.modes import Modes, to_blocks
from slams_jax.observe import Stream, whitened_innovations
from slams_jax.observe.streams import identity_decode
from slams_jax.products import product

KEPT = (0.9, 0.7, 0.4, 0.0)  # of covariances between different EOFs
CROSSED = (1.0, 0.0)  # of those between the state and the background's error
CHOSEN = 6  # blocks that the factors are chosen on
SMALLEST = 1e-6  # variance of a residual, relative to that of the state
ITERATIONS, LINEARISATIONS, BATCH = 60, 2, 4
FEWEST = {"training": 20, "validation": 5}  # times of a period


class Lags(NamedTuple):
    """Regressors of the state at t: the state and the inputs so many times later."""

    state: tuple[int, ...]
    inputs: tuple[int, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Step:
    """The regression of the state at one time.

    Attributes:
        gain: of the coefficients on the regressors.
        root: Q^(1/2).
        rest_gain: of what is orthogonal to the EOFs, on the same part of the state and of the
            background at the same lags; one number for all of it.
        rest_std: standard deviation of its residual, for white noise orthogonal to the EOFs.
        lags: the regressors.
    """

    gain: Inexact[Array, "block mode regressor"]
    root: Inexact[Array, "block mode mode"]
    rest_gain: Float[Array, "block lag"]
    rest_std: Float[Array, " block"]
    lags: Lags = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LinearModel:
    """The fitted regressions.

    Attributes:
        modes: EOFs of the state.
        input_modes: EOFs of each input.
        steps: regressions, by (whether there is a time before, whether there is one after).
        inputs: names of the fields that are inputs.
    """

    modes: Modes
    input_modes: tuple[Modes, ...]
    steps: dict[tuple[bool, bool], Step]
    inputs: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def trajectory(
        self, fields: Sequence[Float[Array, "time lat lon _"]], white: Trajectory
    ) -> Trajectory:
        """Standardised states (time, lat, lon, channel) from the inputs and white noise."""
        count = white.shape[0]
        noise, *rest_noise = self.modes.coefficients(white)
        parts = [m.coefficients(f) for m, f in zip(self.input_modes, fields, strict=True)]
        inputs = [p[0] for p in parts]
        states: list[Array] = []
        rests: list[Array] = []
        for t in range(count):
            step = self.steps[t > 0, t + 1 < count]
            regressors = [states[t + lag] for lag in step.lags.state]
            regressors += [b[..., t + lag] for lag in step.lags.inputs for b in inputs]
            state = product("bij,bj->bi", step.root, noise[..., t])
            if regressors:
                seen = jnp.concatenate(regressors, axis=1)
                state = state + product("bij,bj->bi", step.gain, seen)
            states.append(state)
            if rest_noise:
                regressors = [rests[t + lag] for lag in step.lags.state]
                if BACKGROUND in self.inputs:
                    background = parts[self.inputs.index(BACKGROUND)][1]
                    regressors += [background[..., t + lag] for lag in step.lags.inputs]
                rest = _scaled(step.rest_std, rest_noise[0][..., t])
                for number, regressor in enumerate(regressors):
                    rest = rest + _scaled(step.rest_gain[:, number], regressor)
                rests.append(rest)
        stacked = [jnp.stack(states, axis=-1)]
        stacked += [jnp.stack(rests, axis=-1)] if rests else []
        return self.modes.field(tuple(stacked))


def fit_linear(
    state: Float[np.ndarray, "time lat lon channel"],
    inputs: Mapping[str, Float[np.ndarray, "time lat lon _"]],
    train: np.ndarray,
    validation: np.ndarray,
    *,
    periodic: bool,
    times: np.ndarray | None = None,
    memory: bool = True,
    rank: int = 60,
) -> LinearModel:
    """Fit the regressions to standardised anomalies.

    EOFs, coefficients and Q are of the training period; the ridge, and a factor on Q that makes up
    for overfitting, are of the validation period.

    Args:
        state: the truth at consecutive times; missing values count as zero anomalies.
        inputs: gridded fields at these times by name, likewise.
        train: indices of the training period, ascending.
        validation: likewise of the validation period.
        periodic: whether the grid goes round a latitude circle.
        times: of the states, datetime64; regressions do not reach over gaps. None without gaps.
        memory: whether the state before is a regressor, and the inputs after: False gives plain
            regression on the inputs at the same time and the one before.
        rank: largest number of EOFs of a block, for the state and for each input.

    Raises:
        InputError: fewer than 20 times of training or 5 of validation.
    """
    for name, index in (("training", train), ("validation", validation)):
        if len(index) < FEWEST[name]:
            raise InputError(
                f"a linear analysis needs at least {FEWEST[name]} times in the {name} period, got "
                f"{len(index)}: lengthen it"
            )
    steps_of = np.arange(len(state)) if times is None else _steps(times)
    basis, a, rest = _eofs(state, train, periodic, rank, None)
    shared = {BACKGROUND: basis}  # the same EOFs, so that the error is a difference
    parts = {n: _eofs(f, train, periodic, rank, shared.get(n)) for n, f in inputs.items()}
    background = parts[BACKGROUND][2] if BACKGROUND in parts else None
    steps = {}
    for before in (False, True):
        for after in (False, True):
            lags = _lags(before, after, memory, bool(inputs))
            problem = _Problem(a, {n: p[1] for n, p in parts.items()}, lags)
            index, check = (_with_neighbours(i, lags, steps_of) for i in (train, validation))
            gain, root = _regression(problem, index, check)
            rest_gain, rest_std = _rest(rest, background, lags, index, basis.shape[2])
            steps[before, after] = Step(
                _single(gain), _single(root), _single(rest_gain), _single(rest_std), lags
            )
    modes = lambda vectors, field: Modes(_single(vectors), field.shape[1:], periodic)
    return LinearModel(
        modes(basis, state),
        tuple(modes(p[0], inputs[n]) for n, p in parts.items()),
        steps,
        tuple(inputs),
    )


@dataclasses.dataclass(frozen=True)
class LinearAnalysis:
    """The analysis with a `LinearModel`: filter at the last time of a window, smoother before.

    Attributes:
        model: the regressions.
        streams: whether observations enter; without them, it is the regression alone.
    """

    model: LinearModel
    streams: bool = True

    @property
    def sees(self) -> Sees:
        """The complete window, if anything after a time has a use for it."""
        later = any(max(s.lags.inputs, default=0) > 0 for s in self.model.steps.values())
        return "window" if self.streams or later else "past"

    @property
    def uses(self) -> tuple[str, ...]:
        """The inputs, and the streams."""
        return (*self.model.inputs, *(("streams",) if self.streams else ()))

    def mean(self, window: Window) -> Float[np.ndarray, "time lat lon channel"]:
        """The analysis without perturbations, physical units."""
        streams = window.streams if self.streams else ()
        return np.asarray(_mean(self.model, *self._arrays(window), streams))

    def __call__(self, key: PRNGKey, window: Window, *, members: int) -> Ensemble:
        """Draws from the posterior, whose mean they have in their number's limit."""
        streams = window.streams if self.streams else ()
        return np.asarray(_draws(key, self.model, *self._arrays(window), streams, members=members))

    def _arrays(self, window: Window) -> tuple[tuple[Array, ...], Array, Array]:
        single = lambda x: jnp.asarray(np.nan_to_num(x), jnp.float32)
        fields = tuple(single(window.fields[n]) for n in self.model.inputs)
        return fields, single(window.climate), single(window.std)


def _analysis(model, fields, climate, std, streams: Sequence[Stream], prior: Trajectory):
    """The state at the minimum of J for a prior realisation of v."""
    state = lambda v: climate + std * model.trajectory(fields, prior + v)

    def residuals(v: Trajectory) -> Any:
        return v, whitened_innovations(streams, state(v), identity_decode, jnp.zeros(()))

    v = jnp.zeros_like(prior)
    if streams:
        step = lambda _, v: gauss_newton(residuals, v, ITERATIONS)
        v = jax.lax.fori_loop(0, LINEARISATIONS, step, v)
    return state(v)


@jax.jit
def _mean(model, fields, climate, std, streams):
    return _analysis(model, fields, climate, std[None, None, None], streams, 0.0 * climate)


@functools.partial(jax.jit, static_argnames="members")
def _draws(key, model, fields, climate, std, streams, *, members: int):
    def member(index: Array) -> Trajectory:
        key_state, key_streams = jax.random.split(jax.random.fold_in(key, index))
        keys = jax.random.split(key_streams, max(len(streams), 1))
        noisy = [perturbed(k, s) for k, s in zip(keys, streams, strict=False)]
        white = jax.random.normal(key_state, climate.shape)
        return _analysis(model, fields, climate, std[None, None, None], noisy, white)

    return jax.lax.map(member, jnp.arange(members), batch_size=min(BATCH, members))


def _scaled(factors: Array, values: Array) -> Array:
    """Each block times its factor."""
    return values * factors[:, None].astype(values.dtype)


def _lags(before: bool, after: bool, memory: bool, inputs: bool) -> Lags:
    """The regressors of a time that has a time before, and one after."""
    earlier = (-1,) if before else ()
    later = (1,) if after and memory else ()
    return Lags(earlier if memory else (), (0, *earlier, *later) if inputs else ())


def _steps(times: np.ndarray) -> np.ndarray:
    """Times as whole numbers of the usual interval."""
    apart = np.diff(times)
    return np.rint((times - times[0]) / np.median(apart)).astype(int)


def _with_neighbours(index: np.ndarray, lags: Lags, steps: np.ndarray) -> np.ndarray:
    """The times of a period whose regressors are in it too, without a gap."""
    there = np.ones(len(index), bool)
    for lag in {*lags.state, *lags.inputs}:
        other = np.clip(index + lag, 0, len(steps) - 1)
        there &= np.isin(index + lag, index) & (steps[other] - steps[index] == lag)
    return index[there]


def _eofs(field, train: np.ndarray, periodic: bool, rank: int, vectors: np.ndarray | None):
    """EOFs (block, dim, mode), coefficients (block, time, mode), what is orthogonal to them."""
    blocks = to_blocks(np.nan_to_num(field), periodic)
    if vectors is None:
        kept = min(rank, len(train), blocks.shape[2])
        rows = [np.linalg.svd(b[train], full_matrices=False)[2][:kept] for b in blocks]
        vectors = np.stack(rows).swapaxes(1, 2)
    leading = blocks @ vectors.conj()
    return vectors, leading, blocks - leading @ vectors.swapaxes(1, 2)


class _Problem(NamedTuple):
    """The regression of the state on regressors at some lags, in coefficients (block, time, mode).

    Attributes:
        state: of the state.
        inputs: of the inputs by name.
        lags: of the regressors.
    """

    state: np.ndarray
    inputs: Mapping[str, np.ndarray]
    lags: Lags

    def regressors(self, index: np.ndarray) -> np.ndarray:
        """As `LinearModel.trajectory` has them (block, time, regressor)."""
        columns = [self.state[:, index + lag] for lag in self.lags.state]
        columns += [b[:, index + lag] for lag in self.lags.inputs for b in self.inputs.values()]
        empty = np.zeros((self.state.shape[0], len(index), 0), self.state.dtype)
        return np.concatenate([empty, *columns], axis=2)

    def parts(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Regressors and state as sums of what covariances are shrunk for.

        Returns:
            State (lag 0 first), errors of the background and other inputs at their lags (block,
            time, part); the kind and the mode of each part (2, part).
        """
        states = [0, *sorted({*self.lags.state, *self._lags_of_background()} - {0})]
        columns = [self.state[:, index + lag] for lag in states]
        kinds = [0] * len(states)
        for lag in self.lags.inputs:
            for kind, (name, b) in enumerate(self.inputs.items(), start=1):
                error = name == BACKGROUND
                columns.append(b[:, index + lag] - (self.state[:, index + lag] if error else 0.0))
                kinds.append(-1 if error else kind)
        labels = [
            np.stack([np.full(c.shape[2], kind), np.arange(c.shape[2])])
            for kind, c in zip(kinds, columns, strict=True)
        ]
        return np.concatenate(columns, axis=2), np.concatenate(labels, axis=1)

    def sums(self) -> np.ndarray:
        """The regressors as sums of the parts (regressor, part)."""
        size = self.state.shape[2]
        states = [0, *sorted({*self.lags.state, *self._lags_of_background()} - {0})]
        width = [size] * len(states)
        width += [b.shape[2] for _ in self.lags.inputs for b in self.inputs.values()]
        starts = np.concatenate([[0], np.cumsum(width)])
        eye = np.eye(starts[-1])
        at = lambda number: eye[starts[number] : starts[number + 1]]
        rows = [at(states.index(lag)) for lag in self.lags.state]
        number = len(states)
        for lag in self.lags.inputs:
            for name in self.inputs:
                error = name == BACKGROUND
                rows.append(at(number) + (at(states.index(lag)) if error else 0.0))
                number += 1
        return np.concatenate([eye[:0], *rows])

    def _lags_of_background(self) -> tuple[int, ...]:
        return self.lags.inputs if BACKGROUND in self.inputs else ()


def _regression(problem: _Problem, train: np.ndarray, check: np.ndarray):
    """Gains (block, mode, regressor) and roots of Q (block, mode, mode)."""
    parts, labels = problem.parts(train)
    sums, size = problem.sums(), problem.state.shape[2]
    covariance = parts.swapaxes(1, 2) @ parts.conj() / parts.shape[1]
    same = np.all(labels[:, :, None] == labels[:, None, :], axis=0)
    crossed = (labels[0][:, None] * labels[0][None, :] == 0) & (labels[0].min() < 0)
    crossed &= (labels[0][:, None] + labels[0][None, :]) == -1

    def solved(kept: float, cross: float, blocks: slice) -> tuple[np.ndarray, np.ndarray]:
        # The factors are positive definite matrices too, and so is the product.
        factors = np.where(same, 1.0, kept) * np.where(crossed, cross, 1.0)
        shrunk = covariance[blocks] * factors
        own, joint = shrunk[:, :size, :size], shrunk[:, :size] @ sums.T
        inner = sums @ shrunk @ sums.T
        ridge = SMALLEST * np.trace(inner, axis1=1, axis2=2).real / max(len(sums), 1)
        inner = inner + (ridge + 1e-30)[:, None, None] * np.eye(len(sums))
        gain = np.linalg.solve(inner.swapaxes(1, 2), joint.swapaxes(1, 2)).swapaxes(1, 2)
        return gain, own - gain @ joint.conj().swapaxes(1, 2)

    x, y = problem.regressors(check), problem.state[:, check]
    some = slice(None, None, -(-len(y) // CHOSEN))
    unseen = lambda gain, blocks: y[blocks] - x[blocks] @ gain.swapaxes(1, 2)
    choices = [(k, c) for k in KEPT for c in (CROSSED if crossed.any() else (1.0,))]
    losses = [np.sum(np.abs(unseen(solved(*c, some)[0], some)) ** 2) for c in choices]
    everything = slice(None)
    gain, q = solved(*choices[int(np.argmin(losses))], everything)
    # What was fitted is too small for what was not.
    error = np.mean(np.abs(unseen(gain, everything)) ** 2, axis=(1, 2))
    expected = np.trace(q, axis1=1, axis2=2).real / size
    factor = np.clip(error / np.maximum(expected, 1e-30), 0.5, 4.0)
    values, vectors = np.linalg.eigh(q * factor[:, None, None])
    values = np.maximum(values, SMALLEST * np.mean(np.abs(y) ** 2))
    return gain, (vectors * np.sqrt(values)[:, None]) @ vectors.conj().swapaxes(1, 2)


def _rest(rest, background, lags: Lags, train: np.ndarray, rank: int):
    """Gains (block, lag) and standard deviation (block,) of what is orthogonal to the EOFs."""
    y = rest[:, train]
    columns = [rest[:, train + lag] for lag in lags.state]
    if background is not None:
        columns += [background[:, train + lag] for lag in lags.inputs]
    if not columns or not rest.any():
        gain, residual = np.zeros((len(rest), len(columns))), y
    else:
        x = np.stack(columns)
        gram = np.einsum("ibtd,jbtd->bij", x.conj(), x, optimize=True).real
        cross = np.einsum("ibtd,btd->bi", x.conj(), y, optimize=True).real
        ridge = (SMALLEST * np.einsum("bii->bi", gram) + 1e-30)[..., None] * np.eye(len(x))
        gain = np.linalg.solve(gram + ridge, cross[..., None])[..., 0]
        residual = y - np.einsum("bi,ibtd->btd", gain, x, optimize=True)
    # White noise orthogonal to the EOFs has fewer degrees of freedom than values.
    freedom = max(rest.shape[2] - rank, 1)
    return gain, np.sqrt(np.sum(np.abs(residual) ** 2, axis=(1, 2)) / (y.shape[1] * freedom))


def _single(values: np.ndarray) -> Array:
    """In single precision, real or complex as they are."""
    return jnp.asarray(values, jnp.complex64 if np.iscomplexobj(values) else jnp.float32)
