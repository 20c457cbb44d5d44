"""A web server on this machine that serves a folder, and fails on demand."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = Callable[[SimpleHTTPRequestHandler], bool]  # True where it has answered in its way


class Web(ThreadingHTTPServer):
    """What is served where; `faults` are asked first, in order, at each request."""

    daemon_threads = True
    faults: list[Fault]
    requests: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that has gone is none."""


class _Handler(SimpleHTTPRequestHandler):
    server: Web

    def do_GET(self):
        self.server.requests.append(self.path)
        if not any(fault(self) for fault in self.server.faults):
            super().do_GET()

    def log_message(self, format, *args):
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Web]:
    server = Web(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    server.faults, server.requests = [], []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def dropped(part: str, times: int, *, after: int = 40) -> Fault:
    """The connection breaks `after` bytes of the body, the first `times` that `part` is asked."""
    left = [times]

    def fault(handler):
        if part not in handler.path or left[0] <= 0:
            return False
        left[0] -= 1
        body = Path(handler.translate_path(handler.path)).read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:after])
        handler.wfile.flush()
        handler.connection.close()
        handler.close_connection = True
        return True

    return fault


def refused(part: str, status: int) -> Fault:
    def fault(handler):
        if part in handler.path:
            handler.send_error(status)
            return True
        return False

    return fault


def hanging(part: str, seconds: float) -> Fault:
    def fault(handler):
        if part in handler.path:
            time.sleep(seconds)
        return False

    return fault
