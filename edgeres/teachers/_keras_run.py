"""A Keras model in TensorFlow, in a process of its own; run as a module, it is that process.

TensorFlow takes long to load, prints, and has one pool of threads for all of a process. `Child`
starts `python -m edgeres.teachers._keras_run FILE`, which says in one line of JSON what the model
is, then answers on its standard output what comes in on its standard input, until that ends. An
array is its length in 8 bytes, then an .npy file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import weakref
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from edgeres import children
from edgeres.errors import BadInput
from edgeres.quiet import without

if TYPE_CHECKING:
    import keras

# Layers that compute and do nothing else; a file with another one could bring code.
PLAIN = frozenset(
    """
    InputLayer Functional Sequential Model Conv2D DepthwiseConv2D SeparableConv2D Dense
    BatchNormalization Activation ReLU LeakyReLU PReLU ELU Softmax Add Multiply Concatenate Average
    Maximum Subtract ZeroPadding2D Cropping2D MaxPooling2D AveragePooling2D GlobalAveragePooling2D
    GlobalMaxPooling2D Dropout SpatialDropout2D GaussianNoise Flatten Reshape Permute Rescaling
    Normalization UpSampling2D LayerNormalization GroupNormalization
""".split()  # noqa: SIM905
)
# What layers are described with: initializers, regularizers, types.
HELPERS = frozenset({
    "DTypePolicy", "Policy", "__tensor__", "__numpy__", "__tuple__", "__keras_tensor__", "Zeros",
    "Ones", "Constant", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling",
    "GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal", "LecunUniform", "LecunNormal",
    "Orthogonal", "Identity", "L1", "L2", "L1L2", "MaxNorm", "UnitNorm", "NonNeg",
})  # fmt: skip


class Child:
    """A model at work; its process ends with it.

    Attributes:
        about: name, input (its shape, batch first), classes, softmax, parameters.

    Raises:
        BadInput: TensorFlow refuses the file, or it could do more than compute.
    """

    def __init__(self, path: Path):
        self.path, self.said = path, tempfile.TemporaryFile()  # noqa: SIM115
        self.child = subprocess.Popen(
            children.command("edgeres.teachers._keras_run", str(path)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"},
        )  # fmt: skip
        weakref.finalize(self, _end, self.child, self.said)
        assert self.child.stdout
        line = self.child.stdout.readline()
        if not line:
            raise self._refusal()
        self.about: dict[str, Any] = json.loads(line)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Prepared images (N, H, W, 3) -> answers (N, C)."""
        assert self.child.stdin and self.child.stdout
        with contextlib.suppress(BrokenPipeError):  # what it died of is said below
            _send(self.child.stdin, images)
        answer = _receive(self.child.stdout)
        if answer is None:
            raise self._refusal()
        return answer

    def _refusal(self) -> BadInput:
        code = self.child.wait()
        self.said.seek(0)
        lines = self.said.read().decode("utf-8", "replace").strip().splitlines() or [""]
        reason = f"crashes: {signal.Signals(-code).name}" if code < 0 else lines[-1][-300:]
        return BadInput(f"{self.path}: can't be a teacher ({reason})")


def _end(child: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    child.kill()
    child.communicate()  # closes the pipes, too
    said.close()


def _send(stream: IO[bytes], array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    stream.write(struct.pack("<Q", buffer.tell()) + buffer.getvalue())
    stream.flush()


def _receive(stream: IO[bytes]) -> np.ndarray | None:
    """The next array; None at the end."""
    length = stream.read(8)
    if len(length) < 8:
        return None
    content = stream.read(struct.unpack("<Q", length)[0])
    found: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return found


def _serve(path: Path) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what TensorFlow prints is no answer
    _require_plain(_config(path))
    with without("jax", "sklearn"):
        import keras

    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise ValueError("it needs one input of images and one output (N, classes)")
    softmax = _ends_in_softmax(model)
    about = {"name": model.name, "input": list(model.inputs[0].shape), "softmax": softmax,
             "classes": model.outputs[0].shape[1], "parameters": model.count_params()}  # fmt: skip
    answers.write(json.dumps(about).encode() + b"\n")
    answers.flush()
    while (images := _receive(sys.stdin.buffer)) is not None:
        _send(answers, np.asarray(model(images, training=False)))


def _ends_in_softmax(model: keras.Model) -> bool:
    last = model.layers[-1]
    named = getattr(getattr(last, "activation", None), "__name__", "")
    return named == "softmax" or type(last).__name__ == "Softmax"


def _config(path: Path) -> object:
    """The architecture as the file writes it, without loading anything of it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive, archive.open("config.json") as file:
            return json.loads(file.read(1 << 26))
    import h5py

    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise ValueError("it holds weights only; save the whole model with model.save(FILE)")
        return json.loads(file.attrs["model_config"])


def _require_plain(config: object) -> None:
    """Refuse a file with other than Keras' own plain objects, before Keras looks at it.

    The training settings are left out: they aren't loaded.
    """
    if isinstance(config, dict):
        kind, module = config.get("class_name"), str(config.get("module") or "keras")
        if kind is not None and str(kind) not in PLAIN | HELPERS:
            raise ValueError(
                f"its {str(kind)[:60]} is none of Keras' plain layers, so it isn't run"
            )
        if module.split(".")[0] not in ("keras", "builtins"):
            raise ValueError(f"it names {module[:60]}, which isn't Keras, so it isn't run")
        for key, value in config.items():
            if key != "compile_config":
                _require_plain(value)
    elif isinstance(config, list):
        for value in config:
            _require_plain(value)


if __name__ == "__main__":
    try:
        _serve(Path(sys.argv[1]))
    except Exception as error:
        sys.exit(" ".join(str(error).split())[:300] or type(error).__name__)
