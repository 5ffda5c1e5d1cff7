"""A folded network as a TensorFlow graph of constants, operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf
    from torch import Tensor, fx, nn

    from edgeres.models.modules import Classifier

    _Sides = int | tuple[int, int]


def saved_model(model: Classifier) -> bytes:
    """The network as saved_model.pb."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    v1 = tf.compat.v1
    px = model.spec.preprocess.size_px
    with tf.Graph().as_default() as graph:
        image = v1.placeholder(tf.float32, (None, px, px, 3), "input")
        logits = tf.identity(_network(model, image), "logits")
        signature = v1.saved_model.predict_signature_def({"input": image}, {"logits": logits})
        # Without attributes at their default, older TensorFlows know them all.
        meta = v1.train.export_meta_graph(graph=graph, strip_default_attrs=True)
    meta.meta_info_def.tags.append(tf.saved_model.SERVING)
    meta.signature_def[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY].CopyFrom(signature)
    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1, meta_graphs=[meta])
    return bytes(saved.SerializeToString(deterministic=True))


def _network(model: Classifier, image: tf.Tensor) -> tf.Tensor:
    """Each operation of a folded network as TensorFlow's own, named as PyTorch names it."""
    import tensorflow as tf

    values: dict[fx.Node, tf.Tensor] = {}
    for node in _traced(model).nodes:
        inputs = [values[n] for n in node.all_input_nodes]
        kind = getattr(node.target, "__name__", node.target)
        if node.op == "placeholder":
            values[node] = image
        elif node.op == "output":
            return inputs[0]
        elif kind == "flatten":
            values[node] = inputs[0]  # the average pool left nothing to flatten
        elif kind == "max_pool2d":
            side = node.kwargs["padding"]
            values[node] = _max_pool(
                inputs[0], node.args[1], node.kwargs["stride"], side, node.name
            )
        elif node.op == "call_module":
            last = any(_flattens(model, user) for user in node.users)
            module = model.get_submodule(node.target)
            values[node] = _layer(node.target, module, [values[n] for n in node.args], last)
        else:
            known = {"relu": tf.nn.relu, "add": tf.add, "mul": tf.multiply}
            values[node] = known[kind](*inputs, name=node.name)
    raise AssertionError("a traced network has an output")


def _traced(model: Classifier) -> fx.Graph:
    """The network's calls; an operation of `network.ops` is one, as PyTorch's own modules are."""
    from torch import fx

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            ours = type(m).__module__ == "edgeres.network.ops"
            return ours or super().is_leaf_module(m, module_qualified_name)

    return Tracer().trace(model)


def _flattens(model: Classifier, node: Any) -> bool:
    if node.op == "call_module":
        return type(model.get_submodule(node.target)).__name__ == "Flatten"
    return bool(getattr(node.target, "__name__", node.target) == "flatten")


def _max_pool(
    x: tf.Tensor, kernel: _Sides, stride: _Sides, padding: _Sides, name: str
) -> tf.Tensor:
    import tensorflow as tf

    sides = padding if isinstance(padding, tuple) else (padding, padding)
    return tf.nn.max_pool2d(x, kernel, stride, _padding(sides), name=name)


def _layer(name: str, module: Any, inputs: list[tf.Tensor], last: bool) -> tf.Tensor:
    """A module with a name of its own: convolution, average pool, linear layer, gate or nothing.

    Args:
        last: what it gives is flattened, so a pool needs no sizes of 1.
    """
    import tensorflow as tf

    def constant(what: str, tensor: Tensor) -> tf.Tensor:
        return tf.constant(tensor.detach().numpy(), name=f"{name}/{what}")

    kind, x = type(module).__name__, inputs[0]
    plain = {"ReLU": tf.nn.relu, "Sigmoid": tf.sigmoid, "Add": tf.add, "Mul": tf.multiply}
    if kind == "Identity" or (kind == "Flatten" and len(x.shape) == 2):  # its pool left nothing
        return x
    if kind in plain:
        return plain[kind](*inputs, name=name)
    if kind == "Concat":
        return tf.concat(inputs, tf.constant(3, name=f"{name}/axis"), name=name)
    if kind in ("Flatten", "Unflatten"):
        sides = [1, 1] if kind == "Unflatten" else []
        return tf.reshape(
            x, tf.constant([-1, *sides, x.shape[-1]], name=f"{name}/shape"), name=name
        )
    if kind == "Hardtanh" and module.max_val == 6:
        return tf.nn.relu6(x, name=name)
    if kind == "Hardtanh":
        above = tf.nn.relu(x, name=f"{name}/relu")
        most = tf.constant([module.max_val] * x.shape[-1], name=f"{name}/most")
        return tf.minimum(above, most, name=name)
    if kind == "MaxPool2d":
        return _max_pool(x, module.kernel_size, module.stride, module.padding, name)
    if kind == "AdaptiveAvgPool2d":
        return tf.reduce_mean(x, (1, 2), keepdims=not last, name=name)
    if kind == "Conv2d":
        y = _convolution(name, module, x, constant)
    else:
        y = tf.matmul(x, constant("weight", module.weight.T), name=name)
    if module.bias is None:
        return y
    return tf.nn.bias_add(y, constant("bias", module.bias), name=f"{name}/bias_add")


def _convolution(
    name: str, module: Any, x: tf.Tensor, constant: Callable[[str, Tensor], tf.Tensor]
) -> tf.Tensor:
    """Depthwise as TensorFlow's own operator; other groups by the shape of the weight."""
    import tensorflow as tf

    if 1 < module.groups == module.in_channels == module.out_channels:
        weight = constant("weight", module.weight.permute(2, 3, 0, 1))
        strides, pads = (1, *module.stride, 1), _padding(module.padding)
        if pads != "VALID":  # with explicit padding TensorFlow's CPU kernel aborts
            x = tf.pad(x, pads, name=f"{name}/pad")
        native = tf.compat.v1.nn.depthwise_conv2d_native  # the other one leaves unused constants
        return native(x, weight, strides, "VALID", dilations=_dilations(module), name=name)
    weight = constant("weight", module.weight.permute(2, 3, 1, 0))
    return tf.nn.conv2d(x, weight, module.stride, _padding(module.padding),
                        dilations=_dilations(module)[1:3], name=name)  # fmt: skip


def _dilations(module: Any) -> list[int]:
    return [1, *module.dilation, 1]


def _padding(sides: tuple[int, int]) -> str | list[list[int]]:
    """PyTorch's padding, the same on both sides; TensorFlow's "SAME" has more after than before
    where a stride leaves it the choice."""
    return [[0, 0], *([side, side] for side in sides), [0, 0]] if any(sides) else "VALID"
