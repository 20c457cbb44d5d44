"""Compiled programs are kept between runs: a command that is started again compiles nothing.

They lie in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`), in `slams_jax`; JAX's own
setting, `JAX_COMPILATION_CACHE_DIR`, goes before it, and `JAX_ENABLE_COMPILATION_CACHE=false` turns
it off. The folder can be deleted at any time.
"""

import dataclasses
import functools
import os
from pathlib import Path

import jax


@dataclasses.dataclass
class Compilations:
    """What this process had to compile.

    Attributes:
        compiled: number of programs that were compiled.
        kept: number of programs that were found in the cache.
        seconds: for both, without tracing.
    """

    compiled: int = 0
    kept: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.compiled} programs compiled and {self.kept} found in the cache, "
            f"in {self.seconds:.1f} s"
        )


def keep_compiled() -> None:
    """Turn the cache on, unless JAX has been told of one or the folder cannot be written."""
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return
    folder = _cache_folder()
    if folder is None:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # Hundreds of small programs are a good part of the time that a command takes to start.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _cache_folder() -> Path | None:
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(root) / "slams_jax" / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a read-only place, or a user without a home
        return None
    return folder if os.access(folder, os.W_OK) else None


@functools.cache
def count_compilations() -> Compilations:
    """The count of this process, from the first call on."""
    count = Compilations()

    def on_event(event: str, **_: object) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            count.kept += 1
            count.compiled -= 1  # the duration below is reported for these too

    def on_duration(event: str, duration_secs: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            count.compiled += 1
            count.seconds += duration_secs

    jax.monitoring.register_event_listener(on_event)
    jax.monitoring.register_event_duration_secs_listener(on_duration)
    return count
