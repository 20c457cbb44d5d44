"""Scalars as TensorBoard reads them."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

EVENT, SESSION = event_pb2.Event, event_pb2.SessionLog  # type: ignore[attr-defined]
FLUSH = 60.0  # seconds that TensorBoard may be behind


class Board:
    """Scalars for TensorBoard, which forgets what it knows of the steps after `start`.

    Written at once. The writer of tensorboardX leaves it to a thread, which a full disk ends
    silently, after which the run would wait for it forever.
    """

    def __init__(self, directory: Path, start: int):
        directory.mkdir(exist_ok=True)
        # Unlike the names that tensorboardX gives, no other within the second.
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
        self._file = RecordWriter(str(directory / name))
        self._flushed = time.monotonic()
        self._event(step=start + 1, file_version="brain.Event:2")
        self._event(step=start + 1, session_log=SESSION(status=SESSION.START))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add the scalars of `step`."""
        for name, value in values.items():
            self._event(step=step, summary=scalar(name, value))
        if time.monotonic() - self._flushed > FLUSH:
            self.flush()

    def flush(self) -> None:
        """Put the file on disk."""
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _event(self, **fields: Any) -> None:
        self._file.write(EVENT(wall_time=time.time(), **fields).SerializeToString())
