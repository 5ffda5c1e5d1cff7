"""TFLite files that TensorFlow's own converter writes, of networks like MLPerf Tiny's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

PX = 16


def residual(end: str = "mean") -> Any:
    """As MLPerf Tiny's ResNet-8: three stages, residual sums, a softmax.

    Args:
        end: `mean`, or `pool`, an average pool of the whole map and a flattening, as theirs has.
    """
    import keras
    from keras import layers

    def conv(x: Any, out: int, side: int, stride: int) -> Any:
        x = layers.Conv2D(out, side, strides=stride, padding="same")(x)
        return layers.BatchNormalization()(x)

    image = x = keras.Input((PX, PX, 3))
    x = layers.Activation("relu")(conv(x, 8, 3, 1))
    for out, stride in ((8, 1), (16, 2), (24, 2)):
        y = layers.Activation("relu")(conv(x, out, 3, stride))
        y = conv(y, out, 3, 1)
        x = conv(x, out, 1, stride) if stride > 1 else x
        x = layers.Activation("relu")(layers.add([x, y]))
    if end == "mean":
        x = layers.GlobalAveragePooling2D()(x)
    else:
        x = layers.Flatten()(layers.AveragePooling2D(PX // 4)(x))
    return _known(keras.Model(image, layers.Dense(10, activation="softmax")(x)))


def separable(relu: float | None = 6.0) -> Any:
    """As MLPerf Tiny's MobileNet (and DS-CNN): a stem, depthwise and 1x1 convolutions."""
    import keras
    from keras import layers

    image = x = keras.Input((PX, PX, 3))
    x = layers.ReLU(relu)(layers.BatchNormalization()(
        layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)))  # fmt: skip
    for out, stride in ((16, 1), (24, 2), (24, 1)):
        x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.ReLU(relu)(layers.BatchNormalization()(x))
        x = layers.Conv2D(out, 1, use_bias=False)(x)
        x = layers.ReLU(relu)(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return _known(keras.Model(image, layers.Dense(10)(x)))


def plain() -> Any:
    """As LeNet: a map of several pixels is flattened, its channels last."""
    import keras
    from keras import layers

    image = x = keras.Input((PX, PX, 3))
    for out in (8, 12):
        x = layers.Conv2D(out, 3, activation="relu")(x)
        x = layers.MaxPooling2D((2, 1))(x)
    x = layers.Dense(20, activation="relu")(layers.Dropout(0.3)(layers.Flatten()(x)))
    return _known(keras.Model(image, layers.Dense(10)(x)))


def gated(end: str = "sigmoid") -> Any:
    """A gate of dense layers, behind a batch norm that no convolution is in front of.

    Args:
        end: of the gate.
    """
    import keras
    from keras import layers

    image = x = keras.Input((PX, PX, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    if end != "sigmoid":
        x = layers.ReLU()(layers.BatchNormalization()(layers.MaxPooling2D(2)(x)))
    y = layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 8))(layers.Dense(8, activation=end)(y))])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(12, 3, strides=2, activation="relu")(x))
    return _known(keras.Model(image, layers.Dense(10)(x)))


def _known(model: Any) -> Any:
    """With statistics and numbers as after some training."""
    draw = np.random.default_rng(0)
    for weight in model.weights:
        value = weight.numpy()
        if weight.name in ("moving_mean", "beta", "bias"):
            value = draw.normal(0, 0.2, value.shape)
        elif weight.name in ("moving_variance", "gamma"):
            value = draw.uniform(0.6, 1.4, value.shape)
        else:
            value = draw.normal(0, (2 / np.prod(value.shape[:-1])) ** 0.5, value.shape)
        weight.assign(value)
    return model


def converted(model: Any, path: Path, integers: str | None = None) -> Path:
    """A file of float numbers, or of integers with ends of this type."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if integers is not None:
        draw = np.random.default_rng(0)
        images = draw.normal(0, 1, (32, 1, PX, PX, 3)).astype(np.float32)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        ends = getattr(tf, integers)
        converter.inference_input_type = converter.inference_output_type = ends
    path.write_bytes(converter.convert())
    return path
