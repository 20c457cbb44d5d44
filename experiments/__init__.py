"""The command-line tools."""

import sys

try:
    import jax  # noqa: F401
except ValueError as error:  # JAX reads its environment on import
    print(f"error: {error}: correct or unset the variable", file=sys.stderr)
    raise SystemExit(2) from None
