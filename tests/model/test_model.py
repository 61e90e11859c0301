import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model.model import mlp, mnist_model, vit
from model.modules import plain_operators, watch_layers
from tests.helpers import reference
from tests.helpers.project import by_set

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).normal(size=(4, 1, 28, 28)).astype(np.float32)

NETWORKS = {
    "mnist_model": mnist_model,
    "mlp": mlp,
    "vit": partial(vit, features=16, depth=2),
}
DROPPING = {name: partial(network, drop_rate=0.5) for name, network in NETWORKS.items()}

every_network = pytest.mark.parametrize("name", NETWORKS)
# The fast set compiles the smallest only.
each_network = pytest.mark.parametrize("name", by_set(["mlp"], NETWORKS))


@pytest.fixture(scope="module")
def first_call():
    """What each network returns when it makes its parameters; compiled when first asked for."""
    quick = {"xla_backend_optimization_level": 1}  # the same numbers, compiled in a third

    class Calls(dict):
        def __missing__(self, name):
            call = jax.jit(lambda key: NETWORKS[name](IMAGES, key=key), compiler_options=quick)
            self[name] = call(KEY)
            return self[name]

    return Calls()


@pytest.fixture(scope="module")
def initial(first_call):
    """Each network's initial parameters."""

    class Parameters(dict):
        def __missing__(self, name):
            return first_call[name][1]

    return Parameters()


def paths(params):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def shapes_of(network, x):
    return jax.eval_shape(lambda x: network(x, key=KEY), x)


def zeros_of(name):
    """Parameters of a network, where only their names and shapes matter."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes_of(NETWORKS[name], IMAGES)[1])


def image_shape(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


# --- the sample network -----------------------------------------------------------------------


def test_the_sample_network_has_13810_parameters():
    logits, params = shapes_of(mnist_model, IMAGES)
    assert logits.shape == (4, 10)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == 13_810


def test_the_sample_network_has_no_bias_in_any_convolution():
    params = paths(zeros_of("mnist_model"))
    kernels = [path for path, leaf in params.items() if leaf.ndim == 4]
    assert len(kernels) == 1 + 3 * 3 + 2
    for path in kernels:
        assert path.replace("kernel", "bias") not in params


def test_the_sample_network_equals_the_same_network_in_numpy():
    random = np.random.default_rng(1)

    def draw(path, leaf):
        inputs = math.prod(leaf.shape[:-1])
        values = random.normal(0, 0.05 if leaf.ndim == 1 else inputs**-0.5, leaf.shape)
        return (values + (path[-1].key == "scale")).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, zeros_of("mnist_model"))
    weights = {path: np.asarray(leaf, np.float64) for path, leaf in paths(params).items()}

    def convolve(x, path, stride=1, padding=0, groups=1):
        kernel = weights[f"{path}/kernel"]
        return reference.conv2d(x, kernel, 0, (stride, stride), (padding, padding), groups)

    def normalise(x, path):
        scale, bias = weights[f"{path}/scale"], weights[f"{path}/bias"]
        return reference.standardise(x, -1, 1e-5) * scale + bias

    def multiply(x, path):
        return x @ weights[f"{path}/kernel"] + weights[f"{path}/bias"]

    def gelu(x):  # https://arxiv.org/abs/1606.08415, the approximation by tanh
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    x = normalise(convolve(IMAGES.transpose(0, 2, 3, 1), "stem", stride=4), "stem_norm")
    for stage, features in enumerate((8, 16, 32)):
        if stage > 0:
            x = convolve(normalise(x, f"down{stage}/norm"), f"down{stage}/conv", stride=2)
        y = convolve(x, f"stage{stage}/depthwise", padding=3, groups=features)
        y = convolve(normalise(y, f"stage{stage}/norm"), f"stage{stage}/expand")
        x = x + convolve(gelu(y), f"stage{stage}/project")
    expected = multiply(gelu(multiply(normalise(x.mean((1, 2)), "norm"), "hidden")), "head")

    logits, _ = jax.jit(lambda x: mnist_model(x, params=params))(IMAGES)
    np.testing.assert_allclose(logits, expected, rtol=2e-5, atol=2e-5)


def test_stages_and_features_follow_the_argument():
    _, params = shapes_of(partial(mnist_model, feat_dims=[4, 6], classes=3), IMAGES)
    assert params["stage1"]["depthwise"]["kernel"].shape == (7, 7, 1, 6)
    assert "stage2" not in params
    assert params["head"]["kernel"].shape == (64, 3)


# --- every network ----------------------------------------------------------------------------


@each_network
def test_initialising_equals_applying_and_evaluation_returns_the_same_params(name, first_call):
    y, params = first_call[name]
    again, same = jax.jit(lambda params: NETWORKS[name](IMAGES, params=params))(params)
    np.testing.assert_allclose(again, y, rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(same) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, same, params)


@each_network
def test_evaluation_ignores_the_key_and_training_does_not(name, initial):
    run = jax.jit(
        lambda key, train: DROPPING[name](IMAGES, params=initial[name], key=key, train=train)[0],
        static_argnums=1,
    )
    first, second = jax.random.key(1), jax.random.key(2)
    assert (run(first, False) == run(second, False)).all()
    assert (run(first, True) == run(first, True)).all()
    assert (run(first, True) != run(second, True)).any()
    with pytest.raises(ValueError, match="needs a key"):
        DROPPING[name](IMAGES, params=initial[name], train=True)


@every_network
def test_without_parameters_or_key_the_error_quotes_the_call_to_make(name):
    function = getattr(NETWORKS[name], "func", NETWORKS[name]).__name__
    with pytest.raises(ValueError, match=rf"Call y, params = {function}\(x, \.\.\., key="):
        NETWORKS[name](IMAGES)


@each_network
def test_an_example_does_not_depend_on_the_others_in_its_batch(name, initial):
    def first(x):
        return NETWORKS[name](x, params=initial[name])[0][0].sum()

    gradient = jax.jit(jax.grad(first))(IMAGES)
    assert (gradient[0] != 0).any()
    assert (gradient[1:] == 0).all()


@each_network
def test_at_first_all_classes_are_about_equally_likely(name, first_call):
    logits, _ = first_call[name]
    assert np.abs(jax.nn.softmax(logits) - 0.1).max() < 0.05


@each_network
def test_bfloat16_is_computed_in_bfloat16_close_to_float32(name, initial):
    @jax.jit
    def run(x):
        return NETWORKS[name](x, params=initial[name])[0]

    rough = run(IMAGES.astype(jnp.bfloat16))
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(rough.astype(np.float32), run(IMAGES), atol=0.02)


@each_network
def test_plain_operators_change_neither_value_nor_gradient(name, initial):
    def loss(params):
        logits, _ = NETWORKS[name](IMAGES, params=params)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(4)).sum()

    @jax.jit
    def both(params):
        with plain_operators():
            plain = jax.value_and_grad(loss)(params)
        return jax.value_and_grad(loss)(params), plain

    chosen, plain = both(initial[name])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), chosen, plain)


@each_network
def test_it_exports_for_any_batch_size(name, initial):
    (batch,) = jax.export.symbolic_shape("batch")
    run = jax.jit(lambda x: NETWORKS[name](x, params=initial[name])[0])
    with plain_operators():
        exported = jax.export.export(run)(image_shape(batch, 1, 28, 28))
    np.testing.assert_allclose(exported.call(IMAGES[:3]), run(IMAGES)[:3], rtol=1e-4, atol=1e-5)


@each_network
def test_it_learns_random_labels(name, initial):
    images = np.random.default_rng(2).normal(size=(16, 1, 28, 28)).astype(np.float32)
    labels = jnp.arange(16) % 10
    optimizer = optax.adam(0.01)

    def loss(params):
        logits, _ = NETWORKS[name](images, params=params)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (logits.argmax(-1) == labels).mean()

    def step(state, _):
        params, optimizer_state = state
        gradients, accuracy = jax.grad(loss, has_aux=True)(params)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state)
        return (optax.apply_updates(params, updates), optimizer_state), accuracy

    state = initial[name], optimizer.init(initial[name])
    _, accuracy = jax.jit(lambda state: jax.lax.scan(step, state, length=60))(state)
    assert accuracy[0] < 0.5
    assert accuracy[-1] == 1


# --- inputs that do not fit -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist_model", "vit"])
def test_images_of_the_wrong_rank_are_reported(name):
    function = getattr(NETWORKS[name], "func", NETWORKS[name]).__name__
    expected = r"expected an input of shape \(batch, channels, height, width\), got \(4, 28, 28\)"
    with pytest.raises(ValueError, match=f"{function}: {expected}"):
        NETWORKS[name](IMAGES[:, 0], key=KEY)


def test_a_single_example_without_a_batch_is_reported_by_the_mlp():
    with pytest.raises(ValueError, match=r"expected an input of shape \(batch, features, ...\)"):
        mlp(IMAGES.reshape(-1), key=KEY)


@pytest.mark.parametrize("name", ["mnist_model", "vit"])
def test_images_that_are_channels_last_are_reported(name):
    with pytest.raises(ValueError, match=r"does not fit an image of \(28, 1\) \(height, width\)"):
        NETWORKS[name](IMAGES.transpose(0, 2, 3, 1), key=KEY)


@pytest.mark.parametrize(
    ("name", "path"),
    [("mnist_model", "stem/kernel"), ("mlp", "hidden0/kernel"), ("vit", "patches/kernel")],
)
def test_another_number_of_channels_than_trained_with_is_reported_by_path(name, path):
    with pytest.raises(ValueError, match=f"parameter {path} has shape"):
        NETWORKS[name](np.repeat(IMAGES, 3, axis=1), params=zeros_of(name))


def test_images_too_small_for_the_stages_are_reported_by_layer():
    with pytest.raises(ValueError, match=r"conv2d \(layer down2/conv\): a window of \(2, 2\)"):
        shapes_of(mnist_model, IMAGES[..., :12, :12])


def test_parameters_of_another_network_are_reported_by_path():
    with pytest.raises(ValueError, match="parameter hidden0/kernel is missing"):
        mlp(IMAGES, params=zeros_of("vit"))


# --- looking inside ---------------------------------------------------------------------------


def test_watching_the_sample_network_shows_every_layer_and_its_shape():
    seen = {}
    with watch_layers(lambda path, y, params: seen.setdefault(path, y.shape)):
        shapes_of(mnist_model, image_shape(512, 1, 28, 28))
    assert seen["stem"] == (512, 7, 7, 8)
    assert seen["stage0/depthwise"] == (512, 7, 7, 8)
    assert seen["stage0/expand"] == (512, 7, 7, 16)
    assert seen["down1"] == (512, 3, 3, 16)
    assert seen["stage2"] == (512, 1, 1, 32)
    assert seen["hidden"] == (512, 64)
    assert seen["head"] == (512, 10)
