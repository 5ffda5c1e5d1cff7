"""Files of integers, made by others and by edgeres, and what they answer in codes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from edgeres.network import onnx_session
from edgeres.types import QuantParams

PX = 16


def codes(count: int, px: int = PX, seed: int = 1) -> np.ndarray:
    """Of random images, int8 (count, 3, px, px)."""
    return np.random.default_rng(seed).integers(-128, 128, (count, 3, px, px), np.int8)


def by_quantize_static(source: Path, path: Path, form: str = "QDQ", *, per_channel: bool = True,
                       activations: str = "QUInt8", weights: str = "QInt8",
                       **extra: Any) -> Path:  # fmt: skip
    """A float ONNX file, as onnxruntime quantizes it on noise."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    name = onnx.load(source).graph.input[0].name
    images = np.random.default_rng(0).normal(0, 1, (32, 3, PX, PX)).astype(np.float32)

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{name: part} for part in np.split(images, 4)]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    logging.disable(logging.WARNING)
    quantize_static(source, path, Images(), QuantFormat[form], per_channel=per_channel,
                    activation_type=QuantType[activations], weight_type=QuantType[weights],
                    extra_options=extra)  # fmt: skip
    logging.disable(logging.NOTSET)
    return path


def answered(path: Path, images: np.ndarray, image: QuantParams, answer: QuantParams) -> np.ndarray:
    """The codes that a file's own runtime answers, as int8 ones, (N, classes).

    Args:
        images: codes, int8 (N, 3, H, H).
    """
    of_tflite = path.suffix == ".tflite"
    kind, last, ask = (_litert if of_tflite else _onnxruntime)(path)
    x: np.ndarray = images.transpose(0, 2, 3, 1) if last else images
    if kind == "float32":
        x = (x.astype(np.float32) - image.zero_point[0]) * np.float32(image.scale[0])
    elif kind == "uint8":
        x = (x.astype(np.int16) + 128).astype(np.uint8)
    given = ask(np.ascontiguousarray(x)).reshape(len(images), -1)
    if given.dtype.kind == "f":
        return np.rint(given / np.float32(answer.scale[0])).astype(int) + answer.zero_point[0]
    return given.astype(int) - (128 if given.dtype == np.uint8 else 0)


def _onnxruntime(path: Path) -> tuple[str, bool, Any]:
    session = onnx_session.computing(path, str(path))
    (image,) = session.get_inputs()
    kind = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int8)": "int8"}
    return kind[image.type], image.shape[3] == 3, lambda x: session.run(None, {image.name: x})[0]


def _litert(path: Path) -> tuple[str, bool, Any]:
    from ai_edge_litert.interpreter import Interpreter

    runtime = Interpreter(str(path))
    runtime.allocate_tensors()
    (image,), (answer,) = runtime.get_input_details(), runtime.get_output_details()

    def ask(images: np.ndarray) -> np.ndarray:
        found = []
        for one in images:
            runtime.set_tensor(image["index"], one[None])
            runtime.invoke()
            found.append(runtime.get_tensor(answer["index"])[0].copy())
        return np.stack(found)

    return np.dtype(image["dtype"]).name, image["shape"][3] == 3, ask
