"""ONNX files whose operators are integer ones as stored (onnxruntime's QOperator format).

The int8 file of the `onnx` target says Q/DQ, which every execution provider and TensorRT's kin
read, and which is integer arithmetic once onnxruntime's optimizer has fused it. This one is what
the optimizer makes of it, stored: the same codes with optimizations on or off, and less to do when
a session starts. QLinearAdd, QGemm and QLinearGlobalAveragePool are onnxruntime's own.

In the int4 file a Cast makes int8 codes of weights that are stored in 4 bits, once when a session
starts (each time, where its optimizer is off). So they are computed in integers, too.
"""

from __future__ import annotations

from pathlib import Path

from edgeres import scratch
from edgeres.disk import storage_errors
from edgeres.network import onnx_file
from edgeres.quiet import quiet
from edgeres.targets import Session, Source, Tracer, _schemes, onnx
from edgeres.targets import _onnx_structure as structures
from edgeres.targets._graph import FileGraph
from edgeres.targets._structure import Structure
from edgeres.types import TensorSpec

SUMMARY = "ONNX for onnxruntime without its optimizer"
PRECISIONS = ("int8", "int4")
SUFFIX = ".qop.onnx"
PACKAGE = "onnxruntime"
EXTRA = None
RUNTIME = "onnxruntime"
ANY_BATCH = True
SCHEMES = {"int8": _schemes.as_trained, "int4": _schemes.as_trained}
beside, whole = onnx.beside, onnx.whole

_OPSETS = {"": (19, 20), "com.microsoft": (1,)}  # the optimizer lists all that it knows
_OPSETS_INT4 = {**_OPSETS, "": (onnx.OPSET_INT4,)}


def export(source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write a .qop.onnx file: uint8 codes in and out."""
    from edgeres.targets import _onnx_rewrites as rewrites

    with quiet(f"writing {path.name} with onnxruntime"), scratch.folder("convert") as folder:
        fused = folder / "fused.onnx"
        onnx.export(source, "int8", fused)
        model = onnx.executed(fused, onnx_file.load(fused))
        used = [entry for entry in model.opset_import if entry.domain in _OPSETS]
        del model.opset_import[:]
        model.opset_import.extend(used)
        for node in model.graph.node:
            node.doc_string = ""  # which optimizer added it
        if precision == "int4":
            assert source.scales is not None
            rewrites.cast_four_bit_weights(model, source.scales)
            model.ir_version = onnx.VERSION_INT4
        with storage_errors(path):
            path.write_bytes(model.SerializeToString(deterministic=True))
    graph = read(path)
    return graph.input, graph.output


def read(path: Path) -> FileGraph:
    """Read the file as it is stored.

    Raises:
        BadInput: not an ONNX file.
    """
    return onnx.as_stored(path)


def structure(path: Path, source: Source, precision: str) -> Structure:
    """The file as it is stored (`_structure`).

    Raises:
        BadInput: not an ONNX file.
    """
    form = structures.Form(_OPSETS, "uint8")
    if precision == "int4":
        form = structures.Form(_OPSETS_INT4, "uint8", onnx.VERSION_INT4)
    return structures.structure(path, source, form)


def session(path: Path, threads: int = 1) -> Session | None:
    """Load the file in onnxruntime on the CPU, unoptimized."""
    return onnx.session_as_written(path, threads)


def tracer(path: Path) -> Tracer | None:
    """Load the file with every operation's answer as an output."""
    with quiet(f"loading {path.name} in onnxruntime"):
        return onnx.tracer_of(path, onnx_file.load(path))
