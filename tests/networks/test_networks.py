import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from slams_jax.networks import (
    Conv,
    UNet,
    compiler_options,
    conv2d,
    coordinate_channels,
    depth_to_space,
    initialise,
    pad,
    space_to_depth,
    upsample_conv2d,
)

PADDINGS = ["sphere", "channel", "edge", "torus"]


def random(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def sphere_field(latitude, longitude):
    """Coordinates of the unit sphere, which are smooth over the poles; any real angles."""
    lat, lon = np.meshgrid(latitude, longitude, indexing="ij")
    field = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
    return jnp.asarray(field[None], jnp.float32)


@pytest.mark.parametrize("halo", [((1, 1), (1, 1)), ((2, 0), (0, 3)), ((7, 9), (9, 11))])
def test_sphere_padding_continues_a_smooth_field_over_the_poles(halo):
    lat, lon = np.pi / 6, np.pi / 4
    rows = np.arange(-halo[0][0], 6 + halo[0][1])
    columns = np.arange(-halo[1][0], 8 + halo[1][1])
    everywhere = sphere_field(-np.pi / 2 + (rows + 0.5) * lat, columns * lon)
    field = sphere_field(-np.pi / 2 + (np.arange(6) + 0.5) * lat, np.arange(8) * lon)
    np.testing.assert_allclose(pad(field, halo, "sphere"), everywhere, atol=1e-6)


@pytest.mark.parametrize(
    ("padding", "modes"),
    [("channel", ("edge", "wrap")), ("edge", ("edge", "edge")), ("torus", ("wrap", "wrap"))],
)
@pytest.mark.parametrize("halo", [((1, 2), (2, 1)), ((0, 0), (0, 1)), ((5, 8), (11, 0))])
def test_padding_repeats_or_wraps_like_numpy(padding, modes, halo):
    x = np.arange(2 * 3 * 5 * 2, dtype=np.float32).reshape(2, 3, 5, 2)
    columns = np.pad(x, ((0, 0), (0, 0), halo[1], (0, 0)), mode=modes[1])
    expected = np.pad(columns, ((0, 0), halo[0], (0, 0), (0, 0)), mode=modes[0])
    np.testing.assert_array_equal(pad(jnp.asarray(x), halo, padding), expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("shape", [(6, 8), (5, 7), (1, 1)])
def test_convolution_is_the_sum_over_shifted_fields(stride, kernel, shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *shape, 3)).astype(np.float32)
    w = rng.normal(size=(kernel, kernel, 3, 4)).astype(np.float32)
    half = kernel // 2
    wide = np.asarray(pad(jnp.asarray(x), ((half, half), (half, half)), "channel"))
    expected = sum(
        np.einsum("bijc,cd->bijd", wide[:, i : i + shape[0], j : j + shape[1]], w[i, j])
        for i in range(kernel)
        for j in range(kernel)
    )[:, ::stride, ::stride]
    np.testing.assert_allclose(
        conv2d(jnp.asarray(x), jnp.asarray(w), "channel", stride=stride), expected, atol=2e-5
    )


@pytest.mark.parametrize(
    ("padding", "kernel"), [*((padding, 3) for padding in PADDINGS), ("sphere", 1), ("edge", 5)]
)
def test_phase_convolution_equals_convolution_of_the_repeated_field(padding, kernel):
    x, w = random((2, 4, 6, 3)), random((kernel, kernel, 3, 4), 1)
    fine = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
    expected = conv2d(fine, w, padding)
    np.testing.assert_allclose(upsample_conv2d(x, w, padding), expected, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "padding"),
    [*(("plain", padding) for padding in PADDINGS), ("strided", "torus"), ("upsampled", "torus")],
)
def test_gradients_are_those_of_the_plain_convolution(kind, padding):
    stride = 2 if kind == "strided" else 1

    def ours(x, w):
        if kind == "upsampled":
            return upsample_conv2d(x, w, padding)
        return conv2d(x, w, padding, stride=stride)

    def plain(x, w):
        if kind == "upsampled":
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        wide = pad(x, ((1, 1), (1, 1)), padding)
        return lax.conv_general_dilated(
            wide, w, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def gradients(function):
        first = jax.grad(lambda x, w: jnp.sum(jnp.sin(function(x, w))), (0, 1))
        second = jax.grad(lambda x, w: sum(jnp.sum(g**2) for g in first(x, w)), (0, 1))
        return *first(x, w), *second(x, w)

    x, w = random((2, 5, 6, 3)), random((3, 3, 3, 4), 1)  # an odd and an even size
    for a, b in zip(gradients(ours), gradients(plain), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.max(jnp.abs(b))))


def test_compiler_options_do_not_change_results():
    x, w = random((2, 8, 16, 16)), random((3, 3, 16, 16), 1)
    f = lambda x, w: jnp.sum(jnp.square(conv2d(x, w, "sphere", stride=2)))
    plain = jax.jit(jax.grad(f, (0, 1)))(x, w)
    compiled = jax.jit(jax.grad(f, (0, 1)), compiler_options=compiler_options())(x, w)
    for a, b in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.max(jnp.abs(a))))


def test_space_to_depth_is_invertible_and_keeps_patches_together():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    y = space_to_depth(x, 2)
    assert y.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(y[0, 1, 2], x[0, 2:4, 4:6].reshape(-1))
    np.testing.assert_array_equal(depth_to_space(y, 2), x)


def test_coordinates_tell_rows_apart_and_join_at_the_date_line():
    x = coordinate_channels((6, 8), "sphere", "both")
    assert x.shape == (6, 8, 4)
    assert np.ptp(x[..., :2], axis=1).max() == 0.0
    # Evenly spaced on the circle: the step over the date line is a step like any other.
    steps = np.linalg.norm(np.roll(x, -1, axis=1) - x, axis=-1)
    np.testing.assert_allclose(steps, steps[0, 0], rtol=1e-5)
    assert coordinate_channels((6, 8), "edge", "none").shape == (6, 8, 0)


def test_coordinates_join_in_both_directions_on_a_torus():
    x = coordinate_channels((6, 8), "torus", "both")
    for axis in (0, 1):
        steps = np.linalg.norm(np.roll(x, -1, axis=axis) - x, axis=-1)
        np.testing.assert_allclose(steps, steps[0, 0], rtol=1e-5)


def unet(**options):
    defaults = dict(channels=5, widths=(8, 12), blocks=1, embedding=16, kernel=3, padding="sphere")
    return UNet(**{**defaults, **options})


def randomised(module, *args):
    """Parameters with nothing left at zero, so that every path counts."""
    rng = np.random.default_rng(9)
    noise = lambda x: 0.1 * rng.normal(size=x.shape).astype(np.float32)
    params = initialise(module.init, jax.random.key(0), *args)
    return jax.tree.map(lambda x: x + noise(x), params)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("padding", "shape"),
    [
        ("sphere", (2, 3)),
        ("channel", (5, 7)),
        ("edge", (6, 9)),
        ("edge", (1, 1)),
        ("torus", (5, 4)),
    ],
)
def test_unet_takes_any_size(padding, shape):
    net = unet(padding=padding, coordinates="both", widths=(8, 8, 8))
    x, t = random((2, *shape, 4)), jnp.array([[0.1], [0.9]])
    params = randomised(net, x, t)
    y, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(net.apply(params, x, t))))(x)
    assert jax.eval_shape(net.apply, params, x, t).shape == (2, *shape, 5)
    assert bool(jnp.isfinite(y))
    assert bool(jnp.all(jnp.isfinite(gradient)))


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["sphere", "torus"])
def test_unet_is_equivariant_in_longitude(padding):
    net = unet(padding=padding, coordinates="latitude")
    x, t = random((1, 8, 16, 4)), jnp.array([[0.3]])
    params = randomised(net, x, t)
    apply = jax.jit(net.apply)
    y = apply(params, x, t)
    turned = apply(params, jnp.roll(x, 4, axis=2), t)  # a multiple of the coarse step
    np.testing.assert_allclose(turned, jnp.roll(y, 4, axis=2), atol=2e-5)
    assert float(jnp.max(jnp.abs(turned - y))) > 0.1


@pytest.mark.slow
def test_unet_depends_on_time_and_position():
    net = unet(coordinates="latitude")
    x = jnp.zeros((2, 8, 8, 4))
    params = randomised(net, x, jnp.zeros((2, 1)))
    y = jax.jit(net.apply)(params, x, jnp.array([[0.2], [0.7]]))
    assert float(jnp.max(jnp.abs(y[0] - y[1]))) > 1e-2
    assert float(jnp.max(jnp.abs(y[0, 0] - y[0, 4]))) > 1e-2


def test_unet_starts_at_zero():
    net = unet()
    x, t = random((1, 8, 8, 4)), jnp.zeros((1, 1))
    params = initialise(net.init, jax.random.key(0), x, t)
    np.testing.assert_array_equal(jax.jit(net.apply)(params, x, t), 0.0)


def test_reference_unet_has_the_published_architecture():
    net = UNet(channels=25, widths=(32, 64, 128), blocks=3, embedding=64, kernel=3, padding="torus")
    x = jax.ShapeDtypeStruct((1, 120, 240, 25), jnp.float32)
    t = jax.ShapeDtypeStruct((1, 1), jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), x, t)["params"]

    def conv(a, b):
        return 9 * a * b + b

    def block(width):  # two convolutions and the modulation
        return 2 * conv(width, width) + 64 * width + width

    expected = conv(25, 32) + conv(32, 64) + conv(64, 128)
    expected += sum(2 * 3 * block(width) for width in (32, 64, 128))
    expected += conv(128, 64) + conv(64, 32) + conv(32, 25)
    expected += (32 * 256 + 256) + (256 * 64 + 64)
    assert sum(x.size for x in jax.tree.leaves(params)) == expected


def test_plain_lax_convolution_agrees_on_a_torus():
    x, conv = random((2, 6, 8, 3)), Conv(4, 3, "torus")
    params = randomised(conv, x)["params"]
    wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
    expected = lax.conv_general_dilated(
        wide, params["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = conv.apply({"params": params}, x)
    np.testing.assert_allclose(y, expected + params["bias"][None, None, None], atol=1e-5)


@pytest.mark.slow
def test_initial_parameters_have_the_shapes_of_the_module_and_unit_gain():
    net = unet(widths=(64, 64), blocks=2)
    x, t = random((1, 8, 8, 4)), jnp.zeros((1, 1))
    params = initialise(net.init, jax.random.key(0), x, t)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x, t)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda s: s.shape, shapes)
    kernel = params["params"]["ResidualBlock_0"]["Conv_0"]["kernel"]
    assert float(jnp.std(kernel)) == pytest.approx((9 * 64) ** -0.5, rel=0.02)
    other = params["params"]["ResidualBlock_0"]["Conv_1"]["kernel"]
    correlation = jnp.vdot(kernel, other) / jnp.linalg.norm(kernel) / jnp.linalg.norm(other)
    assert abs(float(correlation)) < 4 / kernel.size**0.5
