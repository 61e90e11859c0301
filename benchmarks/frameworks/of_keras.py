"""The networks of benchmarks/peers.py in Keras 3 on JAX, trained by `fit`.

python of_keras.py NETWORK
"""

import os
import sys
import time

os.environ["KERAS_BACKEND"] = "jax"

import keras
from common import BATCH, LEARNING_RATE, WEIGHT_DECAY, serve, training_set
from keras import layers


def gelu(x):
    """GELU by tanh, as everywhere in this comparison."""
    return keras.activations.gelu(x, approximate=True)


def norm(x):
    """LayerNorm over the channels."""
    return layers.LayerNormalization(epsilon=1e-5)(x)


def sample(x, features=(8, 16, 32)):
    """The sample network."""
    x = norm(layers.Conv2D(features[0], 4, 4, use_bias=False)(x))
    for stage, size in enumerate(features):
        if stage > 0:
            x = layers.Conv2D(size, 2, 2, use_bias=False)(norm(x))
        y = norm(layers.DepthwiseConv2D(7, padding="same", use_bias=False)(x))
        y = layers.Conv2D(2 * size, 1, use_bias=False, activation=gelu)(y)
        x = layers.Add()([x, layers.Conv2D(size, 1, use_bias=False)(y)])
    x = norm(layers.GlobalAveragePooling2D()(x))
    return layers.Dense(10)(layers.Dense(64, activation=gelu)(x))


def lenet(x):
    """The network of pytorch-template."""
    x = layers.ReLU()(layers.MaxPooling2D(2)(layers.Conv2D(10, 5)(x)))
    x = layers.SpatialDropout2D(0.5)(layers.Conv2D(20, 5)(x))
    x = layers.Flatten()(layers.ReLU()(layers.MaxPooling2D(2)(x)))
    x = layers.Dropout(0.5)(layers.Dense(50, activation="relu")(x))
    return layers.Dense(10)(x)


class Position(layers.Layer):
    """Adds a learned vector to each position."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal())

    def call(self, x):
        return x + self.table


def vit(x, features=64, heads=4, depth=4, patch=7):
    """The small Vision Transformer of model/model.py."""
    x = layers.Conv2D(features, patch, patch)(x)
    x = Position()(layers.Reshape((-1, features))(x))
    for _ in range(depth):
        y = norm(x)
        x = layers.Add()([x, layers.MultiHeadAttention(heads, features // heads)(y, y)])
        y = layers.Dense(4 * features, activation=gelu)(norm(x))
        x = layers.Add()([x, layers.Dense(features)(y)])
    return layers.Dense(10)(layers.GlobalAveragePooling1D()(norm(x)))


def mlp(x):
    """The fully connected network of model/model.py."""
    x = layers.Dense(128, activation=gelu)(layers.Flatten()(x))
    return layers.Dense(10)(layers.Dense(64, activation=gelu)(x))


def main():
    """Serves epochs of a network."""
    (name,) = sys.argv[1:]
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 1))
    network = {"sample": sample, "lenet": lenet, "vit": vit, "mlp": mlp}[name]
    model = keras.Model(inputs, network(inputs))
    model.compile(
        optimizer=keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    images, labels = training_set()
    images = images[..., None]

    def epoch():
        began = time.perf_counter()
        history = model.fit(images, labels, batch_size=BATCH, epochs=1, verbose=0)
        return time.perf_counter() - began, history.history["loss"][-1]

    serve(model.count_params(), epoch)


if __name__ == "__main__":
    main()
