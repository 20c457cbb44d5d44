"""How every command starts and ends: bad input is one line and exit status 2, no traceback."""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as log

from experiments.process.compilation import count_compilations, keep_compiled
from experiments.process.distributed import join
from slams_jax.errors import InputError, Preempted, RunError

BAD_INPUT, FAILED, INTERRUPTED, PREEMPTED = 2, 1, 130, 143  # exit statuses


def run(
    main: Callable[[], None],
    argv: Sequence[str] | None = None,
    *,
    optional_config: bool = False,
    distributed: bool = False,
) -> NoReturn:
    """Parse the flags of `argv` (sys.argv), call `main` and exit.

    A flag that is unknown, leftover words, a configuration that cannot be read and `InputError`
    give `error: ...` on stderr and status 2, `RunError` likewise with status 1. A run that was
    asked to end by SIGTERM and has saved itself ends with status 143, one that was interrupted
    from the keyboard with 130. Anything else is a mistake of the program and keeps its traceback.
    What is compiled is kept for the next start (`experiments.compilation`); the last line of the
    log says how much it was. With `distributed` the command may be one of several processes, which
    are joined first.
    """

    def guarded(arguments: Sequence[str]) -> None:
        if len(arguments) > 1:
            _stop(
                f"unexpected argument {arguments[1]!r}: write flags as --name=value, "
                "without a space"
            )
        if "config" in flags.FLAGS:
            _check_config(flags.FLAGS["config"].value, optional=optional_config)
        keep_compiled()
        compilations = count_compilations()
        try:
            if distributed:
                join()
            elif flags.FLAGS["distributed"].value:
                raise InputError("--distributed is for training and analyses: leave it out here")
            main()
            log.info("%s", compilations)
        except InputError as error:
            _stop(error)
        except RunError as error:
            _stop(error, FAILED)
        except Preempted as stop:
            _stop(stop, PREEMPTED, label="stopped")
        except KeyboardInterrupt:
            _stop("interrupted", INTERRUPTED)

    # Of the backends that were looked for and not found, once for each process.
    logging.getLogger("jax").setLevel(logging.WARNING)
    app.run(guarded, argv=None if argv is None else list(argv), flags_parser=_parse)
    sys.exit(0)


def _check_config(config: Any, *, optional: bool) -> None:
    if config is None:
        if optional:
            return
        _stop("no configuration: give --config=configs/<name>.py")
    try:
        # A file that cannot be loaded says so no earlier than here.
        config.keys()
    except OSError as error:
        reason = str(error).split("file config_config", 1)[-1]
        _stop(f"the configuration cannot be read, check --config:{reason}")


def _parse(argv: Sequence[str]) -> Sequence[str]:
    """The words that are no flags, the program's name first."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _stop(error)
    except FileNotFoundError as error:
        _stop(f"no configuration file {error.filename}: check --config")
    except (
        AttributeError,
        ImportError,
        KeyError,
        OSError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as error:
        # What a configuration file or an override of a field of it can do wrong.
        reason: object = error
        while isinstance(reason, BaseException) and reason.args:
            reason = reason.args[0]  # an error in an error, for an unknown field
        name = str(reason).strip("'")
        if name.isidentifier():
            reason = f"it has no field {name!r} to override, write it in the file"
        _stop(f"the configuration cannot be read: {reason}")


def _stop(message: object, status: int = BAD_INPUT, *, label: str = "error") -> NoReturn:
    print(f"{label}:", " ".join(str(message).split()), file=sys.stderr, flush=True)
    sys.exit(status)
