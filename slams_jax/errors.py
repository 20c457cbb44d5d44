"""Exceptions: errors that a user can correct, and runs that ended early."""


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
