"""Exceptions: errors that a user can correct, and runs that ended early; checks of settings."""

import math
from collections.abc import Mapping, Sequence


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class InputError(ValueError):
    """Bad input. The message is one line: what is wrong, what was expected, and what to do.

    Commands print only the message and exit with status 2; library code can catch it as a
    `ValueError`.
    """


class RunError(RuntimeError):
    """A run that cannot continue although its input is valid: it diverged, or files are damaged.

    The message is one line: what happened, what is left, and what to do. Commands exit with
    status 1.
    """


class Diverged(RunError):
    """Values that are not finite, or a loss above its limit."""


class Preempted(Exception):
    """A run that was asked to stop (SIGTERM) and has saved all that it needs to resume.

    Not an error: commands exit with status 143; repeat the command to resume.
    """


def check_at_least(settings: object, prefix: str = "", /, **least: int) -> None:
    """Refuse attributes of `settings` below their `least`; `prefix` stands before their names.

    Raises:
        InputError: the first of them.
    """
    for name, low in least.items():
        value = getattr(settings, name)
        if value < low:
            raise InputError(f"{prefix}{name} must be at least {low}, got {value}")


def check_positive(settings: object, /, *names: str) -> None:
    """Refuse attributes of `settings` that are not positive.

    Raises:
        InputError: the first of them.
    """
    for name in names:
        value = getattr(settings, name)
        if not value > 0:
            raise InputError(f"{name} must be positive, got {value}")


def check_known(settings: object, prefix: str = "", /, **choices: Sequence[str]) -> None:
    """Refuse attributes of `settings` outside their `choices`; `prefix` as in `check_at_least`.

    Raises:
        InputError: the first of them.
    """
    for name, known in choices.items():
        value = getattr(settings, name)
        if value not in known:
            raise InputError(f"{prefix}{name} {value!r} is unknown: choose from {known}")


def require_positive(parameters: Mapping[str, int | float], owner: str) -> None:
    """Raise InputError at a parameter of `owner` that is no positive number."""
    for name, value in parameters.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} of {owner} must be a positive number, got {value}")


def missing_package(owner: str, package: str, extra: str, error: ImportError) -> InputError:
    """What says that `owner` needs a package, and which extra of this library brings it."""
    return InputError(
        f"{owner} needs the package {package}: pip install 'slams-jax[{extra}]' ({error})"
    )
