"""How every command starts and ends: bad input is one line and exit status 2, no traceback.

Each command has flags of its own, an `absl.flags.FlagValues` that no other command sees.
"""

import inspect
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as log
from ml_collections import config_flags

from experiments.process.compilation import count_compilations, keep_compiled
from experiments.process.distributed import join
from slams_jax.errors import InputError, Preempted, RunError, first_line

BAD_INPUT, FAILED, INTERRUPTED, PREEMPTED = 2, 1, 130, 143  # exit statuses
HELP = ("--help", "-help", "-h")


class _PathParser(flags.ArgumentParser[Path]):
    """A file or folder; `~` is the user's home."""

    syntactic_help = "a file or folder"

    def parse(self, argument: str | Path) -> Path:
        return Path(argument).expanduser()


def config_flag(values: flags.FlagValues) -> flags.FlagHolder[Any]:
    """`--config`, and `--config.NAME=VALUE` for every field of the file."""
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "Configuration file; --config.NAME=VALUE overrides a field.",
        flag_values=values,
        lock_config=True,
    )


def path_flag(values: flags.FlagValues, name: str, help_text: str) -> flags.FlagHolder[Path | None]:
    """A flag that takes a file or folder."""
    return flags.DEFINE(_PathParser(), name, None, help_text, flag_values=values)  # type: ignore[return-value]


def model_flag(values: flags.FlagValues) -> flags.FlagHolder[str | None]:
    """`--model`, a trained model in place of the one in the work directory."""
    return flags.DEFINE_string(
        "model",
        None,
        "Trained model in place of the one in config.workdir: a saved file, its URL, or the "
        "directory of another run.",
        flag_values=values,
    )


def distributed_flag(values: flags.FlagValues) -> flags.FlagHolder[bool | None]:
    """`--distributed`, for commands that several processes can run together."""
    return flags.DEFINE_bool(
        "distributed",
        None,
        "Join the other processes of this run. Launchers and clusters set it by themselves.",
        flag_values=values,
    )


def folder(path: Path) -> Path:
    """The folder of `--output`, made if need be.

    Raises:
        InputError: a folder that cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {path}: cannot be written ({error.strerror})") from None
    return path


def run(
    main: Callable[[], None],
    values: flags.FlagValues,
    argv: Sequence[str] | None = None,
    *,
    optional_config: bool = False,
) -> NoReturn:
    """Parse the flags of a command, call `main` and exit.

    An unknown flag, leftover words, a configuration that cannot be read and `InputError` end in
    `error: ...` on stderr and status 2, `RunError` in status 1. A run that SIGTERM stopped after it
    saved its state ends with status 143, one interrupted from the keyboard with 130. Anything else
    is a bug and keeps its traceback. Compiled programs are kept for the next start
    (`experiments.process.compilation`); the last line of the log counts them. A command with the
    flag `--distributed` joins its other processes first.

    Args:
        main: the command; its module's docstring is what `--help` shows.
        values: its flags.
        argv: the command line, `sys.argv` if None.
        optional_config: whether the command runs without `--config` too.
    """

    def parse(argv: Sequence[str]) -> Sequence[str]:
        if any(word in HELP for word in argv[1:]):
            print(help_text(main, values))
            sys.exit(0)
        flags.FLAGS.mark_as_parsed()  # absl's own, which nobody sets
        return _parse(values, argv)

    def guarded(arguments: Sequence[str]) -> None:
        if len(arguments) > 1:
            _stop(
                f"unexpected argument {arguments[1]!r}: write flags as --name=value, "
                "without a space"
            )
        if "config" in values:
            _check_config(values["config"].value, optional=optional_config)
        keep_compiled()
        compilations = count_compilations()
        try:
            if "distributed" in values:
                join(values["distributed"].value)
            main()
            log.info("%s", compilations)
        except InputError as error:
            _stop(error)
        except RunError as error:
            _stop(error, FAILED)
        except RuntimeError as error:
            if "Unable to initialize backend" not in str(error):
                raise
            _stop(f"JAX finds no device ({first_line(error)}): check JAX_PLATFORMS")
        except Preempted as stop:
            _stop(stop, PREEMPTED, label="stopped")
        except KeyboardInterrupt:
            _stop("interrupted", INTERRUPTED)

    # JAX tells of backends that it looked for and did not find, in every process.
    logging.getLogger("jax").setLevel(logging.WARNING)
    app.run(guarded, argv=None if argv is None else list(argv), flags_parser=parse)
    sys.exit(0)


def help_text(main: Callable[[], None], values: flags.FlagValues) -> str:
    """What `--help` prints: the docstring of the command's module, then a line for each flag."""
    forms = {}
    for name in sorted(values):
        flag = values[name]
        said = flag.help.split(">: ")[-1]
        if flag.default not in (None, False, []):
            said += " (default: " + str(flag.default_as_str).strip("'") + ")"
        choices = getattr(flag.parser, "enum_values", None)
        form = f"--{name}={'|'.join(choices) if choices else name.upper()}"
        forms[f"--[no]{name}" if flag.boolean else form] = said
    width = max(map(len, forms), default=0)
    lines = [f"  {form:{width}}  {said}" for form, said in forms.items()]
    return "\n".join([inspect.getdoc(inspect.getmodule(main)) or "", "", "Flags:", *lines])


def _check_config(config: Any, *, optional: bool) -> None:
    if config is None:
        if optional:
            return
        _stop("no configuration: give --config=configs/<name>.py")
    try:
        # A file that cannot be loaded fails only when it is first used.
        config.keys()
    except OSError as error:
        reason = str(error).split("file config_config", 1)[-1]
        _stop(f"the configuration cannot be read, check --config:{reason}")


def _parse(values: flags.FlagValues, argv: Sequence[str]) -> Sequence[str]:
    """The words that are no flags, the program's name first."""
    try:
        return values(argv)
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
        # What a configuration file, or an override of one of its fields, can do wrong.
        reason: object = error
        while isinstance(reason, BaseException) and reason.args:
            reason = reason.args[0]  # an unknown field is an error within an error
        if absent := re.search(r'field "(\w+)" is None', str(reason)):
            reason = f"its group {absent[1]!r} is None, write it in the file"
        name = str(reason).strip("'")
        if name.isidentifier():
            reason = f"it has no field {name!r} to override, write it in the file"
        _stop(f"the configuration cannot be read: {reason}")


def _stop(message: object, status: int = BAD_INPUT, *, label: str = "error") -> NoReturn:
    print(f"{label}:", " ".join(str(message).split()), file=sys.stderr, flush=True)
    sys.exit(status)
