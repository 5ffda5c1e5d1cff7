"""A Keras model (.keras or .h5, the whole model) as a black box, answered by TensorFlow.

The ResNets of `keras.applications` are recognized by their names: v1 takes blue-green-red pixels
less the ImageNet mean (`caffe` in Keras' words), v2 pixels from -1 to 1. For any other model the
recipe says `mean` and `std`. A custom layer or a lambda is never run.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.disk import file_sha256, require_stored
from edgeres.errors import BadInput, MissingComponent
from edgeres.teachers import Found, Wanted, describe
from edgeres.types import Preprocess, to_json

if TYPE_CHECKING:
    from edgeres.training.answers import Teacher

SUMMARY = "a whole Keras model, a black box: keras:FILE.keras or keras:FILE.h5"
BLACK_BOX = True
_APPLICATION = re.compile(r"resnet(50|101|152)(v2)?")
# keras.applications.imagenet_utils: caffe subtracts (103.939, 116.779, 123.68) in BGR, std 1 pixel
_CAFFE = (tuple(x / 255 for x in (123.68, 116.779, 103.939)), (1 / 255,) * 3, "bgr")
_SIGNED = ((0.5,) * 3, (0.5,) * 3, "rgb")


def check(rest: str) -> None:
    """The file and TensorFlow must be there."""
    path = Path(rest)
    if not path.is_file():
        raise BadInput(f"teacher 'keras:{rest}': no such file")
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise BadInput(f"teacher 'keras:{rest}': not a .keras or .h5 file; save the whole model "
                       "with model.save(FILE.keras)")  # fmt: skip
    require_stored(path, "model.save")
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingComponent(
            "a Keras teacher needs TensorFlow: pip install 'edgeres[tensorflow]'"
        )


def keyed(rest: str) -> object:
    """The file's contents."""
    check(rest)
    return file_sha256(Path(rest))


def fetch(rest: str, wanted: Wanted, out: Path) -> Found:
    """Copy the file, and note how it is asked."""
    from edgeres.teachers._black_box import Form, check_outputs
    from edgeres.teachers._keras_run import Child

    path = Path(rest)
    check(rest)
    about = Child(path).about
    shape = about["input"]
    if len(shape) != 4 or shape[3] != 3:
        raise BadInput(f"{path}: its input is {shape}; a teacher takes images (N, H, W, 3)")
    check_outputs(about["classes"], wanted, str(path))
    mean, std, channels = _prepared(about["name"], wanted, path)
    preprocess = Preprocess(shape[1] or wanted.size_px or wanted.data_px, mean, std)
    form = Form(preprocess, channels, "NHWC", about["softmax"], wanted.outputs)
    name = f"teacher{path.suffix}"
    shutil.copyfile(path, out / name)
    describe(out, source="keras", file=name, form=to_json(form))
    return Found(path.name, parameters=about["parameters"])


def open(folder: Path, document: dict[str, Any]) -> Teacher:
    """The model in a process of its own."""
    from edgeres.teachers._black_box import BlackBox, Form
    from edgeres.teachers._keras_run import Child

    path = folder / Path(document["file"]).name
    return BlackBox(Child(path).run, Form.from_json(document["form"]), str(path))


def _prepared(
    name: str, wanted: Wanted, path: Path
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """mean, std and channels: the recipe's, or those of keras.applications."""
    known = _APPLICATION.fullmatch(name)
    own = None if known is None else _SIGNED if known[2] else _CAFFE
    if wanted.mean is not None and wanted.std is not None:
        return wanted.mean, wanted.std, wanted.channels or "rgb"
    if own is None:
        raise BadInput(f"{path}: doesn't say how its images are prepared; give teacher.mean and "
                       "teacher.std (in pixel / 255; caffe-style: std 0.00392157 and "
                       "channels: bgr)")  # fmt: skip
    return own[0], own[1], wanted.channels or own[2]
