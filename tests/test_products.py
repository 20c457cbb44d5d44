import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.baselines import kalman_smoother, variational
from slams_jax.baselines.ensemble_kalman import etkf, iterative_enkf, letkf, stochastic_enkf
from slams_jax.cycling import ensemble_oi
from slams_jax.gaussian import fit_prior
from slams_jax.grid import Grid
from slams_jax.observe import Dense, LowRank, Points, Separable
from slams_jax.observe.satellite import OutgoingLongwave, Sounder
from slams_jax.products import product
from slams_jax.schema import channels_of
from slams_jax.verify.probabilistic import crps

LIBRARY = Path(__file__).parents[1] / "slams_jax"
PRODUCTS = {"dot", "dot_general", "einsum", "inner", "matmul", "tensordot", "vdot"}
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
CHANNELS = channels_of(["temperature"], [30.0, 300.0, 500.0, 850.0])
GRID = Grid((-60.0, -20.0, 20.0, 60.0), (0.0, 60.0, 120.0, 180.0, 240.0, 300.0))


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def precisions(function, *args):
    """Those of all products in the program of a function."""
    found, queue = [], [jax.make_jaxpr(function)(*args).jaxpr]
    while queue:
        for equation in queue.pop().eqns:
            if equation.primitive.name == "dot_general":
                found.append(equation.params["precision"])
            for value in jax.tree.leaves(list(equation.params.values())):
                inner = getattr(value, "jaxpr", value)
                queue += [inner] if hasattr(inner, "eqns") else []
    return found


def filtered(make, *args, **options):
    """An ensemble filter as a function of background, observations and key."""
    return make(lambda x: x[:4], jnp.ones(4), *args, **options)


def smoothed(y, h, matrix, mean):
    return kalman_smoother(
        y,
        h,
        matrix,
        transition=matrix,
        process_covariance=matrix,
        mean=mean,
        covariance=matrix,
    )


STATE = normal(3, *GRID.shape, 4)
ANY = jnp.ones(())
SEPARABLE = Separable(
    jnp.ones((*GRID.shape, 4)), normal(24, 2), jnp.ones(2), ANY, jnp.eye(4), jnp.ones(4), ANY
)
LOW_RANK = LowRank(jnp.ones((3, 8)), normal(3, 8, 2))
DENSE = Dense.of(np.broadcast_to(np.eye(8), (3, 8, 8)))
PRIOR = fit_prior(np.asarray(normal(60, *GRID.shape, 4)), periodic=True, rank=6)
OI = ensemble_oi(
    normal(5, 2, 3),
    lambda x: x.T,
    jnp.ones(2),
    variance=1.0,
    nearness=jnp.ones((3, 3)),
    between=jnp.ones((3, 3)),
)
ENSEMBLE = (normal(5, 6), normal(4), KEY)
SINGLE = (normal(6), normal(4), KEY)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (Points.at(GRID, CHANNELS, np.zeros(2), np.ones(2), np.full(2, 400.0)), (STATE,)),
        (Sounder.of(CHANNELS), (STATE,)),
        (OutgoingLongwave.of(CHANNELS), (STATE,)),
        (SEPARABLE.whiten, (STATE, ANY)),
        (SEPARABLE.sample_root, (STATE,)),
        (LOW_RANK.whiten, (normal(3, 8), ANY)),
        (LOW_RANK.sample_root, (normal(3, 8),)),
        (DENSE.whiten, (normal(3, 8), ANY)),
        (DENSE.sample_root, (normal(3, 8),)),
        (PRIOR.denoise, (STATE, ANY, ANY)),
        (PRIOR.over(3).solve, (STATE, ANY)),
        (PRIOR.sample_root, (STATE,)),
        (OI.increment, (normal(3, 2),)),
        (filtered(etkf), ENSEMBLE),
        (filtered(etkf, inflation="adaptive"), ENSEMBLE),
        (filtered(iterative_enkf), ENSEMBLE),
        (filtered(variational, lambda v: product("ij,j->i", jnp.eye(6), v)), SINGLE),
        (smoothed, (normal(3, 2), normal(3, 2, 2), jnp.eye(2), normal(2))),
        (filtered(letkf, jnp.ones((6, 4))), ENSEMBLE),
        (filtered(stochastic_enkf), ENSEMBLE),
        (crps, (STATE, STATE[0])),
    ],
    ids=lambda x: getattr(x, "__qualname__", type(x).__name__) if callable(x) else "",
)
def test_products_outside_the_networks_are_in_full_precision(function, args):
    found = precisions(function, *args)
    assert found
    assert all(p is not None and set(p) == {jax.lax.Precision.HIGHEST} for p in found)


def test_the_default_precision_is_noticed():
    a = normal(3, 3)
    assert precisions(jax.jit(lambda a: a @ a), a) == [None]
    assert len(precisions(lambda a: product("ij,jk->ik", a, a), a)) == 1


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda p: p.stem)
def test_products_are_taken_in_one_place(path):
    """On the host, NumPy's are in double precision."""
    if path.name == "products.py" or path.parent.name == "networks":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in PRODUCTS:
            owner = ast.unparse(node.value)
            assert owner not in {"jnp", "jax.numpy", "jax.lax"}, (
                f"{path}:{node.lineno}: {owner}.{node.attr} rounds its factors on accelerators: "
                "use slams_jax.products.product"
            )
