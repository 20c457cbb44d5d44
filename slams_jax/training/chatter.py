"""Keeps what orbax tells of its own inside out of a run's log."""

import contextlib
import logging as std_logging
import sys
from collections.abc import Iterator
from typing import Any

from absl import logging


def _is_heard(record: std_logging.LogRecord) -> bool:
    """Orbax tells a page at every save, and its errors come as exceptions besides."""
    return "orbax" not in record.pathname and "exception was never" not in str(record.msg)


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Within, logs hold no lines of orbax's; usable as a decorator.

    When a read fails, orbax closes its event loop on the reads that are still under way, each of
    which then prints a traceback about that; these are dropped too.
    """
    loggers = (logging.get_absl_logger(), std_logging.getLogger("asyncio"))
    hook = sys.unraisablehook

    def unraisable(event: Any) -> None:
        if str(event.exc_value) != "Event loop is closed":
            hook(event)

    for logger in loggers:
        logger.addFilter(_is_heard)
    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for logger in loggers:
            logger.removeFilter(_is_heard)
