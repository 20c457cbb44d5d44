"""The one exception that tells a user what to change."""


class InputError(ValueError):
    """Bad input: its message is one line naming the thing, what was expected, and the way out.

    The command-line tools print the message alone and exit with status 2; library code may catch
    it as the `ValueError` it is.
    """


class RunError(RuntimeError):
    """A run that cannot go on though its input was right: it diverged, or its files are damaged.

    Its message is one line too: what happened, what is left, and the way out.
    """
