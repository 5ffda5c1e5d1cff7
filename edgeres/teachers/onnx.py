"""An ONNX file as a black box, answered by onnxruntime.

Its images are prepared as `teacher.mean`, `std` and `channels` say; a file that edgeres wrote says
so itself. One input of images (NCHW or NHWC, float32), one output (N, classes).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.disk import file_sha256
from edgeres.errors import BadInput
from edgeres.teachers import Found, Wanted, describe
from edgeres.types import Preprocess, to_json

if TYPE_CHECKING:
    import numpy as np

    from edgeres.teachers._black_box import Form
    from edgeres.training.answers import Teacher

SUMMARY = "any classifier as an ONNX file, a black box: onnx:FILE"
BLACK_BOX = True
_FILE = "teacher.onnx"


def check(rest: str) -> None:
    """The file must be there."""
    if not Path(rest).is_file():
        raise BadInput(f"teacher 'onnx:{rest}': no such file")


def keyed(rest: str) -> Any:
    """The file's contents."""
    check(rest)
    return file_sha256(Path(rest))


def fetch(rest: str, wanted: Wanted, out: Path) -> Found:
    """Copy the file, and note how it is asked."""
    from edgeres.teachers._black_box import check_outputs

    path = Path(rest)
    form, parameters = _examined(path, wanted)
    shutil.copyfile(path, out / _FILE)
    describe(out, source="onnx", form=to_json(form))
    answer = open(out, {"form": to_json(form)}).answer(_grey(wanted.data_px))
    if wanted.outputs is None:
        check_outputs(answer.shape[1], wanted, str(path))
    return Found(path.name, parameters=parameters)


def open(folder: Path, document: dict[str, Any]) -> Teacher:
    """The file in onnxruntime.

    Raises:
        BadInput: onnxruntime refuses it.
    """
    from edgeres.teachers._black_box import BlackBox, Form

    form = Form.from_json(document["form"])
    return BlackBox(_runner(folder / _FILE), form, str(folder / _FILE))


def _runner(path: Path) -> Any:
    import numpy as np
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception class per status code
        raise BadInput(f"{path}: onnxruntime can't load it ({_first(error)})") from error
    (first,) = session.get_inputs()
    step = first.shape[0] if isinstance(first.shape[0], int) else None

    def run(images: np.ndarray) -> np.ndarray:
        parts = np.split(images, range(step, len(images), step)) if step else [images]
        try:
            return np.concatenate([_run(session, first.name, part, step) for part in parts])
        except Exception as error:
            raise BadInput(f"{path}: onnxruntime can't run it ({_first(error)})") from error

    return run


def _run(session: Any, name: str, images: np.ndarray, step: int | None) -> np.ndarray:
    """Answers of at most `step` images; a file of a fixed batch gets the last image repeated."""
    import numpy as np

    short = (step or 0) - len(images)
    whole = np.concatenate([images, images[-1:].repeat(short, 0)]) if short > 0 else images
    answer: np.ndarray = session.run(None, {name: whole})[0]
    return answer[: len(images)].reshape(len(images), -1)


def _examined(path: Path, wanted: Wanted) -> tuple[Form, int]:
    """How the file is asked, and its number of parameters."""
    import math

    import onnx

    from edgeres.teachers._black_box import Form, check_outputs

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's and onnx's own kinds
        raise BadInput(f"{path}: not an ONNX file ({_first(error)})") from error
    graph = model.graph
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in graph.initializer):
        raise BadInput(f"{path}: keeps its weights in another file; save it as one "
                       "(onnx.save with save_as_external_data=False)")  # fmt: skip
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


def _grey(size_px: int) -> Any:
    import torch

    return torch.full((1, 3, size_px, size_px), 128, dtype=torch.uint8)


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
