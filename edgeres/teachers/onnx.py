"""An ONNX file: an ordinary network, or, where its operations aren't known, a black box.

A black box is answered by onnxruntime. Its images are prepared as `teacher.mean`, `std` and
`channels` say; a file that edgeres wrote says so itself. One input of images (NCHW or NHWC,
float32), one output (N, classes).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.disk import file_sha256
from edgeres.errors import BadInput
from edgeres.teachers import Found, Peeked, Wanted, describe
from edgeres.types import Preprocess, to_json

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnxruntime
    import torch

    from edgeres.teachers._black_box import Form, Run
    from edgeres.training.answers import Teacher

SUMMARY = "any classifier as an ONNX file; a black box if it holds unknown operations: onnx:FILE"
BLACK_BOX = False
_FILE = "teacher.onnx"
_ANY_SIZE = 224  # for files that take any, before the data are there


def is_onnx(path: Path) -> bool:
    """Whether a file is one, by its name or by its first byte."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return path.suffix.lower() == ".onnx" or file.read(1) == b"\x08"
    except (OSError, ValueError):
        return False


def check(rest: str) -> None:
    """The file must be there."""
    if not Path(rest).is_file():
        raise BadInput(f"teacher 'onnx:{rest}': no such file")


def keyed(rest: str) -> object:
    """The file's contents, and those of the files that it keeps weights in."""
    from edgeres.network import onnx_file

    check(rest)
    path = Path(rest)
    beside = [file_sha256(other) for other in onnx_file.beside(path)]
    return [file_sha256(path), *beside] if beside else file_sha256(path)


def precheck(rest: str, wanted: Wanted) -> None:
    """Read a network before the data are there; raises like `fetch`, but for its classes."""
    if unknown(rest) is None:
        count = len(wanted.outputs or ())
        network(Path(rest), dataclasses.replace(wanted, classes=count, new_head="never"))


def unknown(rest: str) -> str | None:
    """Why a file is a black box; None: it is a network."""
    path = Path(rest)
    if not path.is_file():
        return "no such file"
    read = _read(path)
    return read if isinstance(read, str) else None


def peek(rest: str) -> Peeked | None:
    """What a file says of itself; None: it is a black box, or isn't there."""
    read = _read(Path(rest)) if Path(rest).is_file() else ""
    return None if isinstance(read, str) else read


def _read(path: Path) -> Peeked | str:
    """What a file says of itself, or why it isn't known."""
    seen = path.stat()
    return _read_once(path, seen.st_mtime_ns, seen.st_size)


@functools.lru_cache(maxsize=8)
def _read_once(path: Path, changed: int, size: int) -> Peeked | str:
    from edgeres.network.from_onnx import from_onnx

    try:
        read = from_onnx(path, _ANY_SIZE)
    except BadInput as error:
        return str(error).removeprefix(f"{path}: ")
    spec = read.module.spec
    return Peeked(spec.classes, spec.preprocess.size_px, read.integers is not None)


def network(path: Path, wanted: Wanted) -> Found:
    """The network of a file, with the data's classes where there are any.

    Raises:
        BadInput: as `from_onnx`, and where its classes or sizes aren't those that are wanted.
    """
    from edgeres.network.from_onnx import from_onnx
    from edgeres.teachers import _network

    return _network.of_graph(from_onnx, path, wanted)


def fetch(rest: str, wanted: Wanted, out: Path) -> Found:
    """Its network, or a copy of the file and how it is asked."""
    from edgeres.network import onnx_file
    from edgeres.teachers._black_box import check_outputs

    path = Path(rest)
    why = unknown(rest)
    if why is None:
        return network(path, wanted)
    model = onnx_file.load(path)
    form, parameters = _examined(model, path, wanted)
    if onnx_file.beside(path):
        (out / _FILE).write_bytes(onnx_file.contents(path, model))
    else:
        shutil.copyfile(path, out / _FILE)
    describe(out, source="onnx", form=to_json(form))
    answer = open(out, {"form": to_json(form)}).answer(_grey(wanted.data_px))
    if wanted.outputs is None:
        check_outputs(answer.shape[1], wanted, str(path))
    note = f"only answers, through onnxruntime, and can't be pruned, quantized or exported: {why}"
    return Found(path.name, parameters=parameters, notes=(note,))


def open(folder: Path, document: dict[str, Any]) -> Teacher:
    """The file in onnxruntime.

    Raises:
        BadInput: onnxruntime refuses it.
    """
    from edgeres.teachers._black_box import BlackBox, Form

    form = Form.from_json(document["form"])
    return BlackBox(_runner(folder / _FILE), form, str(folder / _FILE))


def _runner(path: Path) -> Run:
    import numpy as np

    from edgeres.network import onnx_session

    session = onnx_session.computing(path, str(path), threads=0)
    (first,) = session.get_inputs()
    step = first.shape[0] if isinstance(first.shape[0], int) else None

    def run(images: np.ndarray) -> np.ndarray:
        parts = np.split(images, range(step, len(images), step)) if step else [images]
        try:
            return np.concatenate([_run(session, first.name, part, step) for part in parts])
        except Exception as error:
            raise BadInput(f"{path}: onnxruntime can't run it ({_first(error)})") from error

    return run


def _run(
    session: onnxruntime.InferenceSession, name: str, images: np.ndarray, step: int | None
) -> np.ndarray:
    """Answers of at most `step` images; a file of a fixed batch gets the last image repeated."""
    import numpy as np

    short = (step or 0) - len(images)
    whole = np.concatenate([images, images[-1:].repeat(short, 0)]) if short > 0 else images
    answer: np.ndarray = session.run(None, {name: whole})[0]
    return answer[: len(images)].reshape(len(images), -1)


def _examined(model: onnx.ModelProto, path: Path, wanted: Wanted) -> tuple[Form, int]:
    """How the file is asked, and its number of parameters."""
    import math

    import onnx

    from edgeres.teachers._black_box import Form, check_outputs

    graph = model.graph
    held = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in held]
    if len(inputs) != 1 or not graph.output:
        raise BadInput(f"{path}: has {len(inputs)} inputs; a teacher has one, of images")
    kind = inputs[0].type.tensor_type
    shape = [d.dim_value for d in kind.shape.dim]
    if len(shape) != 4 or 3 not in (shape[1], shape[3]) or kind.elem_type != onnx.TensorProto.FLOAT:
        raise BadInput(f"{path}: its input is {shape}; a teacher takes float32 images of 3 "
                       "channels, (N, 3, H, W) or (N, H, W, 3)")  # fmt: skip
    layout = "NCHW" if shape[1] == 3 else "NHWC"
    size = shape[2] or wanted.size_px or wanted.data_px  # square; 0: any
    last = {name: node for node in graph.node for name in node.output}.get(graph.output[0].name)
    classes = [d.dim_value for d in graph.output[0].type.tensor_type.shape.dim]
    if len(classes) == 2 and classes[1]:
        check_outputs(classes[1], wanted, str(path))
    said = {p.key: p.value for p in model.metadata_props}.get("edgeres.preprocess")
    preprocess = _preprocess(wanted, size, said, path)
    softmax = last is not None and last.op_type == "Softmax"
    form = Form(preprocess, wanted.channels or "rgb", layout, softmax, wanted.outputs)
    return form, sum(math.prod(t.dims) for t in graph.initializer if t.data_type == 1)


def _preprocess(wanted: Wanted, size: int, said: str | None, path: Path) -> Preprocess:
    if wanted.mean is not None and wanted.std is not None:
        return Preprocess(size, wanted.mean, wanted.std)
    if said is None:
        raise BadInput(f"{path}: doesn't say how its images are prepared; give teacher.mean and "
                       "teacher.std (in pixel / 255)")  # fmt: skip
    own = json.loads(said)
    return Preprocess(size, tuple(own["mean"]), tuple(own["std"]))


def _grey(size_px: int) -> torch.Tensor:
    import torch

    return torch.full((1, 3, size_px, size_px), 128, dtype=torch.uint8)


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
