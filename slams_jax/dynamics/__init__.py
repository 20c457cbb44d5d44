"""Nature runs: Lorenz-63 and the Held-Suarez global atmosphere."""

from slams_jax.dynamics import held_suarez, lorenz63
from slams_jax.dynamics.held_suarez import Atmosphere, HeldSuarezConfig
from slams_jax.dynamics.lorenz63 import Lorenz63

__all__ = ["Atmosphere", "HeldSuarezConfig", "Lorenz63", "held_suarez", "lorenz63"]
