"""The networks of benchmarks/peers.py in Keras 3 on JAX, trained by `fit`.

python of_keras.py NETWORK [--device cpu] [--dtype float32]
"""

import common
import keras
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


def batch_norm(x):
    """BatchNorm as in PyTorch."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def resnet18(x):
    """ResNet-18 for pictures of 32 x 32."""

    def conv(x, features, size=3, stride=1):
        return layers.Conv2D(features, size, stride, padding="same", use_bias=False)(x)

    x = layers.ReLU()(batch_norm(conv(x, 64)))
    for features in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if features > 64 and not block else 1
            y = layers.ReLU()(batch_norm(conv(x, features, stride=stride)))
            y = batch_norm(conv(y, features))
            if stride > 1:
                x = batch_norm(conv(x, features, 1, stride))
            x = layers.ReLU()(layers.Add()([x, y]))
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(x))


def gpt(x, features=384, heads=6, depth=6):
    """The network of examples/text, of an ordinary size."""
    x = Position()(layers.Embedding(common.CODES, features)(x))
    for _ in range(depth):
        attention = layers.MultiHeadAttention(heads, features // heads)
        y = norm(x)
        x = layers.Add()([x, attention(y, y, use_causal_mask=True)])
        y = layers.Dense(4 * features, activation=gelu)(norm(x))
        x = layers.Add()([x, layers.Dense(features)(y)])
    return layers.Dense(common.CODES)(norm(x))


NETWORKS = {
    "sample": sample, "lenet": lenet, "vit": vit, "mlp": mlp, "resnet18": resnet18, "gpt": gpt,
}  # fmt: skip


def main(options):
    """Serves epochs of a network."""
    keras.utils.set_random_seed(0)
    if options.dtype == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    stored, targets = common.training_set(options)
    inputs = keras.Input(stored.shape[1:], dtype=str(stored.dtype))
    outputs = layers.Activation("linear", dtype="float32")(NETWORKS[options.network](inputs))
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.AdamW(common.LEARNING_RATE, weight_decay=common.WEIGHT_DECAY),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    def epoch():
        history = model.fit(stored, targets, batch_size=options.batch, epochs=1, verbose=0)
        return history.history["loss"][-1]

    common.serve(sum(weight.value.size for weight in model.trainable_weights), epoch)


if __name__ == "__main__":
    main(common.parse_options())
