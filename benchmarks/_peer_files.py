"""int8 files of one network by different tools, each used as its own documentation says.

A maker takes (float network with batch norm folded, normalized calibration images, path without
suffix) and writes one file. Every tool sees the same network and the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from edgeres import targets
from edgeres.models.resnet import ResNet

Maker = Callable[[ResNet, torch.Tensor, Path], Path]


def float_file(name: str, model: ResNet, path: Path) -> Path:
    """The network as a float file of ours: what the other tools start from."""
    target, precision = targets.load(name)
    file = path.with_name(f"{path.name}-{name}{target.SUFFIX}")
    target.export(targets.Source(model), precision, file)
    return file


def ort_default(model: ResNet, images: torch.Tensor, path: Path) -> Path:
    """onnxruntime's quantize_static as it comes."""
    return _ort(model, images, path)


def ort_best(model: ResNet, images: torch.Tensor, path: Path) -> Path:
    """onnxruntime's quantize_static as its guide recommends for x86: uint8, per channel."""
    from onnxruntime.quantization import QuantType

    return _ort(model, images, path, activation_type=QuantType.QUInt8, per_channel=True)


def _ort(model: ResNet, images: torch.Tensor, path: Path, **settings: object) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[torch.Tensor] = iter(images.split(32))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch.numpy()}

    file = float_file("onnx-fp32", model, path)
    prepared = file.with_name(f"{path.name}-prepared.onnx")
    quant_pre_process(str(file), str(prepared))
    out = path.with_suffix(".onnx")
    quantize_static(str(prepared), str(out), Reader(), **settings)
    return out


def nncf_onnx(model: ResNet, images: torch.Tensor, path: Path) -> Path:
    """NNCF's post-training quantization of an ONNX model, with its defaults."""
    import nncf
    import onnx

    file = float_file("onnx-fp32", model, path)
    batches = [{"input": image[None].numpy()} for image in images]
    quantized = nncf.quantize(onnx.load(file), nncf.Dataset(batches), subset_size=len(batches))
    out = path.with_suffix(".onnx")
    onnx.save(quantized, out)
    return out


def ai_edge_quantizer(model: ResNet, images: torch.Tensor, path: Path) -> Path:
    """Google's ai-edge-quantizer, recipe static_wi8_ai8, on a float TFLite file."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    file = float_file("tflite-fp32", model, path)
    signature = Interpreter(str(file)).get_signature_list()
    (key,) = signature
    (name,) = signature[key]["inputs"]
    data = [{name: image[None].permute(0, 2, 3, 1).contiguous().numpy()} for image in images]
    work = quantizer.Quantizer(str(file), recipe.static_wi8_ai8())
    calibrated = work.calibrate({key: data})
    out = path.with_suffix(".tflite")
    work.quantize(calibrated).export_model(str(out), overwrite=True)
    return out


def litert_torch_pt2e(model: ResNet, images: torch.Tensor, path: Path) -> Path:
    """litert-torch's own PT2E quantizer, symmetric per channel, static."""
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import (
        PT2EQuantizer,
        get_symmetric_quantization_config,
    )
    from litert_torch.quantize.quant_config import QuantConfig
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = PT2EQuantizer().set_global(
        get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
    )
    px = model.spec.preprocess.size_px
    example = (torch.zeros(1, 3, px, px),)
    prepared = prepare_pt2e(torch.export.export(model.eval(), example).module(), quantizer)
    with torch.no_grad():
        for image in images:
            prepared(image[None])
    network = litert_torch.to_channel_last_io(convert_pt2e(prepared, fold_quantize=False), args=[0])
    network.training = False
    out = path.with_suffix(".tflite")
    litert_torch.convert(
        network, (torch.zeros(1, px, px, 3),),
        quant_config=QuantConfig(pt2e_quantizer=quantizer),
    ).export(str(out))  # fmt: skip
    return out


PEERS: dict[str, dict[str, Maker]] = {
    "onnx": {"onnxruntime, default": ort_default, "onnxruntime, best": ort_best,
             "NNCF": nncf_onnx},
    "tflite": {"ai-edge-quantizer": ai_edge_quantizer, "litert-torch PT2E": litert_torch_pt2e},
}  # fmt: skip
