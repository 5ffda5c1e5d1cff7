"""TensorFlow SavedModels for TF Serving and TensorFlow's own tools; NHWC, any batch size.

    FILE.savedmodel/saved_model.pb             one graph, its weights constants in it
    FILE.savedmodel/assets.extra/NOTE.txt      what the file says of itself

A flat graph of constants needs no checkpoint and holds nothing random (a `tf.Module`'s functions
have numbered names, its fingerprint a random one), and it can be read without being loaded.
`tf.saved_model.load`, TF Serving and the converters take it as they take any SavedModel.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.artifact import storage_errors
from edgeres.errors import BadInput
from edgeres.quiet import quiet
from edgeres.targets import Session, Source, Tracer, require
from edgeres.targets._graph import FileGraph
from edgeres.types import ScaleTable, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from edgeres.models.resnet import ResNet

SUMMARY = "TensorFlow SavedModel: TF Serving"
PRECISIONS = ("fp32",)
SUFFIX = ".savedmodel"
PACKAGE = "tensorflow"
EXTRA = "tensorflow"
RUNTIME = "TensorFlow"
SCHEMES: dict[str, Callable[[ScaleTable], ScaleTable]] = {}

_BATCH = 16  # images at a time: the activations of more would fill a small machine's memory


def export(source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write a .savedmodel folder with the signature `serving_default`; a SavedModel is replaced.

    Raises:
        BadInput: a folder of that name holds something else.
        MissingComponent: tensorflow is not installed.
    """
    require(f"savedmodel-{precision}")
    with quiet(f"writing {path.name} with tensorflow"), storage_errors(path):
        content = _saved_model(source.model)
        if path.is_dir() and any(path.iterdir()):
            if not (path / "saved_model.pb").is_file():
                raise BadInput(f"{path}: holds no SavedModel; move it out of the way")
            shutil.rmtree(path)
        notes = path / "assets.extra"  # the place that TensorFlow leaves to its users
        notes.mkdir(parents=True)
        (path / "saved_model.pb").write_bytes(content)
        for key, text in source.metadata.items():
            (notes / f"{key}.txt").write_bytes(text.encode())
    graph = read(path)
    return graph.input, graph.output


def read(path: Path) -> FileGraph:
    """Read the graph as stored; nothing in it is run.

    Raises:
        BadInput: not a SavedModel, a damaged one, one whose network is in functions or variables,
            or not of one input and one output.
        MissingComponent: tensorflow is not installed.
    """
    require("savedmodel-fp32")
    with quiet(f"reading {path.name}"):
        from edgeres.targets._savedmodel_read import graph

        return graph(path)


def session(path: Path, threads: int = 1) -> Session | None:
    """Load the file in TensorFlow.

    Args:
        threads: of TensorFlow's kernels. It has one pool of them in a process, so the first
            session decides.

    Raises:
        BadInput: as `read`, or it holds operators that a network has no use for.
        MissingComponent: as `read`.
    """
    graph = read(path)
    with quiet(f"loading {path.name} in tensorflow"):
        import tensorflow as tf

        from edgeres.targets._savedmodel_read import require_harmless

        require_harmless(path)
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError:
            pass  # TensorFlow has started with what it was told then
        try:
            return _Session(path, tf.saved_model.load(str(path)), graph)
        except Exception as error:  # its loader lets through whatever its parts raise
            reason = " ".join(str(error).split())[:200]
            raise BadInput(f"{path}: TensorFlow can't load it ({reason})") from error


def tracer(path: Path) -> Tracer | None:  # noqa: ARG001
    """None: only integer files are checked layer by layer."""
    return None


class _Session:
    """A loaded file's one signature."""

    def __init__(self, path: Path, loaded: Any, graph: FileGraph):
        self.path, self.ends = path, (graph.input.name, graph.output.name)
        self.loaded = loaded  # TensorFlow frees the signature with it
        self.signature = loaded.signatures["serving_default"]

    def run(self, images: np.ndarray) -> np.ndarray:
        import numpy as np

        first, last = self.ends
        parts = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
        with quiet(f"running {self.path.name}"):
            import tensorflow as tf

            answers = [self.signature(**{first: tf.constant(part)})[last] for part in parts]
            return np.concatenate([answer.numpy() for answer in answers])


def _saved_model(model: ResNet) -> bytes:
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


def _network(model: ResNet, image: Any) -> Any:
    """Each operation of a folded network as TensorFlow's own, named as PyTorch names it."""
    import tensorflow as tf
    from torch import fx

    values: dict[fx.Node, Any] = {}
    for node in fx.symbolic_trace(model).graph.nodes:
        inputs = [values[n] for n in node.all_input_nodes]
        kind = getattr(node.target, "__name__", node.target)
        if node.op == "placeholder":
            values[node] = image
        elif node.op == "output":
            return inputs[0]
        elif kind == "flatten":
            values[node] = inputs[0]  # the average pool left nothing to flatten
        elif node.op == "call_module":
            values[node] = _layer(node.target, model.get_submodule(node.target), inputs[0])
        elif kind == "max_pool2d":
            side = node.kwargs["padding"]
            values[node] = tf.nn.max_pool2d(inputs[0], node.args[1], node.kwargs["stride"],
                                            _padding((side, side)), name=node.name)  # fmt: skip
        else:
            values[node] = {"relu": tf.nn.relu, "add": tf.add}[kind](*inputs, name=node.name)
    raise AssertionError("a traced network has an output")


def _layer(name: str, module: Any, x: Any) -> Any:
    """A module with a name of its own: convolution, average pool, linear layer or nothing."""
    import tensorflow as tf

    def constant(what: str, tensor: Any) -> Any:
        return tf.constant(tensor.detach().numpy(), name=f"{name}/{what}")

    kind = type(module).__name__
    if kind == "Identity":
        return x
    if kind == "AdaptiveAvgPool2d":
        return tf.reduce_mean(x, (1, 2), name=name)
    if kind == "Conv2d":
        weight = constant("weight", module.weight.permute(2, 3, 1, 0))
        y = tf.nn.conv2d(x, weight, module.stride, _padding(module.padding), name=name)
    else:
        y = tf.matmul(x, constant("weight", module.weight.T), name=name)
    if module.bias is None:
        return y
    return tf.nn.bias_add(y, constant("bias", module.bias), name=f"{name}/bias_add")


def _padding(sides: tuple[int, int]) -> Any:
    """PyTorch's padding, the same on both sides; TensorFlow's "SAME" has more after than before
    where a stride leaves it the choice."""
    return [[0, 0], *([side, side] for side in sides), [0, 0]] if any(sides) else "VALID"
