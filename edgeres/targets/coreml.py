"""Core ML packages, written by coremltools from the one graph; NCHW, batch 1, iOS 17 / macOS 14.

A Core ML int8 model is a program of float operations between quantize and dequantize, which the
device's compiler fuses into integer kernels; `read` fuses them the same way. Core ML runs on
Apple's systems only; elsewhere the saved program is interpreted (`_mil`), which checks its numbers
but not Apple's kernels.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgeres.errors import BadInput
from edgeres.quiet import quiet, without
from edgeres.targets import Session, Source, Tracer, _schemes, require
from edgeres.targets import _mil_package as packages
from edgeres.targets._graph import FileGraph
from edgeres.targets._mil_container import standard
from edgeres.targets._structure import Structure
from edgeres.types import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from coremltools import PassPipeline
    from coremltools.converters.mil.mil import Operation
    from coremltools.models import MLModel
    from torch import nn

    from edgeres.targets._mil import Interpreter

SUMMARY = "Core ML: iPhone, iPad, Mac"
PRECISIONS = ("fp16", "int8", "palettized")
SUFFIX = ".mlpackage"
PACKAGE = "coremltools"
EXTRA = "coreml"
RUNTIME = "Core ML" if sys.platform == "darwin" else "interpreter"
SCHEMES = {"int8": _schemes.halves}

_DATE = "com.github.apple.coremltools.conversion_date"


def export(source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write a .mlpackage; its output is float16, and so is its input (`int8`: float32).

    Args:
        precision: `fp16`; `int8` (weights and activations in 8 bits); `palettized` (float16
            arithmetic, each large weight stored as indices into a table found by k-means).
    """
    ct = _coremltools()
    with quiet(f"writing {path.name} with coremltools"):
        import numpy as np
        import torch

        network: nn.Module = source.model
        if precision == "int8":
            from edgeres.compression.graph import quantized_graph

            assert source.scales is not None
            network = quantized_graph(source.model, source.scales, fold_weights=True)
        px = source.model.spec.preprocess.size_px
        example = (torch.zeros(1, 3, px, px),)
        program = torch.export.export(network, example).run_decompositions({})
        package = ct.convert(
            program, minimum_deployment_target=ct.target.iOS17,
            inputs=[ct.TensorType(name="input", shape=example[0].shape,
                                  dtype=np.float32 if precision == "int8" else None)],
            outputs=[ct.TensorType(name="logits", dtype=np.float16)],
            compute_precision=ct.transform.FP16ComputePrecision(_in_half),
            pass_pipeline=_passes(ct),
        )  # fmt: skip
        if precision == "palettized":
            package = _palettized(package)
        _describe(package, source, precision)
        package.save(str(path))
        _repeatable(path, ct)
    graph = read(path)
    return graph.input, graph.output


def read(path: Path) -> FileGraph:
    """Read the package's program, fusing quantize and dequantize as the device's compiler does.

    Raises:
        BadInput: not a Core ML package, damaged, or not an ML program of one input and one output.
        MissingComponent: coremltools is not installed.
    """
    from edgeres.targets._mil_graph import graph

    return graph(packages.load(path, _coremltools()))


def structure(path: Path, source: Source, precision: str) -> Structure:
    """The package's own program, each operation as it is stored, and what else it holds.

    Args:
        source: what it must have been written from: its notes and the standard metadata say that.

    Raises:
        BadInput, MissingComponent: as `read`.
    """
    from edgeres.targets._mil_structure import structure

    return structure(path, source, precision, _coremltools())


def session(path: Path, threads: int = 1) -> Session | None:  # noqa: ARG001
    """Load the package: into Core ML on macOS, elsewhere into the interpreter.

    Args:
        threads: not obeyed. Core ML chooses for itself, the interpreter uses torch's setting.

    Raises:
        BadInput: as `read`; or an operation that only Core ML knows.
    """
    ct = _coremltools()
    if sys.platform != "darwin":
        return _interpreter(path, ct)
    package = packages.load(path, ct)  # says what is wrong with a file in one sentence
    if package.classifier:
        raise BadInput(
            f"{path}: a classifier, which answers with a label; export it without labels"
        )
    with quiet(f"loading {path.name} in Core ML"):
        return _Session(ct.models.MLModel(str(path)))


def tracer(path: Path) -> Tracer | None:
    """Load the package so that its tensors can be seen; None on macOS, where Core ML hides them.

    Raises:
        BadInput: as `session`.
    """
    if sys.platform == "darwin":
        return None
    from edgeres.targets._mil_graph import visible

    return _Tracer(_interpreter(path, _coremltools()), visible(read(path)))


class _Session:
    """Core ML itself."""

    def __init__(self, model: MLModel):
        description = model.get_spec().description
        self.model, self.input = model, description.input[0].name
        self.output = description.output[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        import numpy as np

        answers = (self.model.predict({self.input: image[None]}) for image in images)
        return np.concatenate([answer[self.output] for answer in answers])


class _Tracer:
    """The interpreter, asked for the tensors that a fused program still has."""

    stand_in = "interpreted"

    def __init__(self, interpreter: Interpreter, names: set[str]):
        self.interpreter, self.names = interpreter, names

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = self.interpreter.trace(images, self.names)
        return found


def _interpreter(path: Path, ct: ModuleType) -> Interpreter:
    from edgeres.targets._mil import Interpreter
    from edgeres.targets._mil_graph import inside_kernels

    package = packages.load(path, ct)
    return Interpreter(package.function, str(path), inside_kernels(package))


def _describe(package: MLModel, source: Source, precision: str) -> None:
    """What Xcode and apps show of the file."""
    told = standard(source, precision)
    package.short_description = told["shortDescription"]
    package.license, package.version = told["license"], told["versionString"]
    for key, value in sorted(source.metadata.items()):
        package.user_defined_metadata[key] = value


def _coremltools() -> ModuleType:
    require("coreml-int8")
    # For converters of their models that aren't used here: fifteen seconds with all of them.
    unused = ("tensorflow", "executorch", "sklearn", "transformers", "xgboost")
    with without(*unused), quiet("importing coremltools"):
        import coremltools
    return coremltools


def _palettized(package: MLModel) -> MLModel:
    """Replace large weights by tables; smaller ones aren't worth one."""
    from coremltools.optimize import coreml as optimize

    from edgeres.targets._palette import LARGEST_PLAIN, PALETTE_BITS, palette

    weights = optimize.OpPalettizerConfig(
        mode="custom", lut_function=lambda weight: palette(weight, PALETTE_BITS),
        weight_threshold=LARGEST_PLAIN,
    )  # fmt: skip
    return optimize.palettize_weights(package, optimize.OptimizationConfig(global_config=weights))


def _in_half(op: Operation) -> bool:
    """Whether an operation computes in float16: all but the one that quantizes the images.

    Rounded to float16 first, some of their values would get another code: 7 in 1,000 with
    ImageNet's mean and deviation.
    """
    return not (op.op_type == "quantize" and op.input.op is None)


def _passes(ct: ModuleType) -> PassPipeline:
    """The default passes but one, which divides the scales of a residual add by one of them.

    That is the same sum on paper; in float16 it rounds the trained scales a second time.
    """
    passes = ct.PassPipeline.DEFAULT
    passes.remove_passes({"common::distributive_quantized_binary_op_scale_normalization"})
    return passes


def _repeatable(path: Path, ct: ModuleType) -> None:
    """Drop what changes from run to run: random ids, the order of maps, the day."""
    spec = packages.specification(path, ct)
    del spec.description.metadata.userDefined[_DATE]
    (path / packages.MODEL).write_bytes(spec.SerializeToString(deterministic=True))
    (path / packages.MANIFEST).write_text(packages.manifest(), "utf-8")
    for extra in path.iterdir():  # a debug map of the converter, not part of the package
        if extra.name not in (packages.MANIFEST.name, "Data"):
            shutil.rmtree(extra) if extra.is_dir() else extra.unlink()
