"""A SavedModel's network in TensorFlow, in a process of its own.

TensorFlow ends its process where a graph breaks a rule that it didn't expect to be broken, and it
has one pool of threads for all of a process. `Child` starts `python -m
edgeres.targets._savedmodel_run`, which answers on its standard output what comes in on its standard
input, until that ends. An array is a line with its type and shape, then its bytes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgeres import children
from edgeres.errors import BadInput
from edgeres.quiet import without

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

_MARK = "because: "  # before its reason: TensorFlow says more afterwards
_BATCH = 16  # images at a time: the activations of more would fill a small machine's memory


class Child:
    """A session; its process ends with it."""

    def __init__(self, path: Path, threads: int):
        self.path, self.said = path, tempfile.TemporaryFile()  # noqa: SIM115
        command = children.command("edgeres.targets._savedmodel_run", str(path), str(threads))
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=self.said)  # fmt: skip
        weakref.finalize(self, _end, self.child, self.said)
        self._answer()  # an empty one, once the network is loaded

    def run(self, images: np.ndarray) -> np.ndarray:
        """Encoded images (N, ...) -> (N, C).

        Raises:
            BadInput: TensorFlow doesn't run it.
        """
        import numpy as np

        return np.concatenate([self.together(images[i : i + _BATCH])
                               for i in range(0, len(images), _BATCH)])  # fmt: skip

    def together(self, images: np.ndarray) -> np.ndarray:
        """The same in one call."""
        assert self.child.stdin
        with contextlib.suppress(BrokenPipeError):  # what it died of is said below
            _send(self.child.stdin, images)
        return self._answer()

    def _answer(self) -> np.ndarray:
        assert self.child.stdout
        answer = _receive(self.child.stdout)
        if answer is not None:
            return answer
        code = self.child.wait()
        self.said.seek(0)
        lines = self.said.read().decode("utf-8", "replace").strip().splitlines() or [""]
        own = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]
        reason = f"crashes: {signal.Signals(-code).name}" if code < 0 else (own or lines)[-1][-300:]
        raise BadInput(f"{self.path}: TensorFlow can't run it ({reason})")


def _end(child: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    child.kill()
    child.communicate()  # closes the pipes, too
    said.close()


def _send(stream: IO[bytes], array: np.ndarray) -> None:
    stream.write(json.dumps([str(array.dtype), array.shape]).encode() + b"\n" + array.tobytes())
    stream.flush()


def _receive(stream: IO[bytes]) -> np.ndarray | None:
    """The next array; None at the end."""
    import numpy as np

    line = stream.readline()
    if not line:
        return None
    dtype, shape = json.loads(line)
    content = stream.read(math.prod(shape) * np.dtype(dtype).itemsize)
    return np.frombuffer(content, dtype).reshape(shape)


def _serve(path: Path, threads: int) -> None:
    import numpy as np

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what TensorFlow prints is no answer
    network = _load(path, threads)
    _send(answers, np.zeros(0, np.float32))
    while (images := _receive(sys.stdin.buffer)) is not None:
        _send(answers, network(images).numpy())


def _load(path: Path, threads: int) -> Callable[[np.ndarray], tf.Tensor]:
    """The network as a function; not by TensorFlow's loader, which runs what else a file holds."""
    with without("keras", "jax", "sklearn"):  # a graph needs none: half of the time to load
        import tensorflow as tf

    from edgeres.targets._savedmodel_read import runnable

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    graph, first, last = runnable(path)
    whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    network = whole.prune(first, last)
    return lambda images: network(tf.constant(images))


if __name__ == "__main__":
    try:
        _serve(Path(sys.argv[1]), int(sys.argv[2]))
    except Exception as error:
        said = [line for line in str(error).splitlines() if not line[:1].isspace()]  # no stack
        sys.exit(_MARK + " ".join(" ".join(said).split())[:300])
