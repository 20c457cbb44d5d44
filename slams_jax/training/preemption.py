"""Being asked to end: SIGTERM, with which schedulers announce that they take the machine away."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

LOG = logging.getLogger(__name__)

ShouldStop = Callable[[int], bool]


@contextlib.contextmanager
def watched() -> Iterator[ShouldStop]:
    """Within, SIGTERM does not end the process; it makes `should_stop` true.

    `should_stop(step)` is asked once before each step, `step` being done, and is true at the same
    step in all processes. Under `jax.distributed` its preemption service is asked, which agrees on
    a step when any of the processes has had the signal; otherwise a handler of our own looks out
    for it (in the main thread only, as Python has it). The two would overwrite each other.
    """
    if jax.distributed.is_initialized():
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        LOG.info("not in the main thread: SIGTERM is not waited for")
        yield lambda step: False
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda step: asked.is_set()
    finally:
        # None: a handler that is not Python's, which cannot be put back from here.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
