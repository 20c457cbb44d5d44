"""The exceptions that tell a user what to change, and how a run ended that did not finish."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, in one line; its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class InputError(ValueError):
    """Bad input: its message is one line naming the thing, what was expected, and the way out.

    The command-line tools print the message alone and exit with status 2; library code may catch
    it as the `ValueError` it is.
    """


class RunError(RuntimeError):
    """A run that cannot go on though its input was right: it diverged, or its files are damaged.

    Its message is one line too: what happened, what is left, and the way out.
    """


class Diverged(RunError):
    """Numbers that are not finite, or a loss above its limit."""


class Preempted(Exception):
    """A run that was asked to end (SIGTERM) and has saved all that it needs to go on.

    No error: the command-line tools exit with status 143, and the same command goes on.
    """
