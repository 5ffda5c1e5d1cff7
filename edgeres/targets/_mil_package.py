"""A .mlpackage as a folder on disk: loaded into coremltools' program, checked, described."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgeres.errors import BadInput, MissingComponent
from edgeres.quiet import quiet

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Program, Var
    from coremltools.proto import MIL_pb2, Model_pb2

MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
MANIFEST = Path("Manifest.json")
WEIGHTS = MODEL.parent / "weights" / "weight.bin"
_PARENT = uuid.UUID("6f0f9d7e-1b0e-4c7e-9d5a-0c4a1d2b3e4f")  # any fixed one makes ids repeatable
# specification version -> the oldest systems that load it (coremltools' `_SPECIFICATION_VERSION_*`)
_SYSTEMS = {6: "iOS 15, macOS 12", 7: "iOS 16, macOS 13", 8: "iOS 17, macOS 14",
            9: "iOS 18, macOS 15", 10: "iOS 26, macOS 26"}  # fmt: skip


@dataclass(frozen=True)
class Package:
    """What a package holds.

    Attributes:
        function: coremltools' `Function`, one input and one output of known sizes.
        metadata: the text it says of itself.
        requires: the oldest systems that load it.
        versions: of its specification and operator set.
        classifier: whether Core ML answers with a label beside the scores.
    """

    function: Function
    metadata: dict[str, str]
    requires: str
    versions: dict[str, int]
    classifier: bool = False


def load(path: Path, ct: ModuleType) -> Package:
    """Load a package.

    Args:
        ct: coremltools.

    Raises:
        BadInput: no package, damaged, an older kind, or a program of another form.
    """
    spec = specification(path, ct)
    if not spec.HasField("mlProgram"):
        raise BadInput(f"{path}: not an ML program (an older Core ML format); export it again")
    (name, function), *others = _functions(spec, path)
    if others or len(function.inputs) != 1:
        raise BadInput(f"{path}: its program has {1 + len(others)} functions and "
                       f"{len(function.inputs)} inputs; edgeres reads one of each")  # fmt: skip
    with quiet(f"reading {path.name}"):
        loaded = _program(spec, path).functions[name]
    classifier = _drop_classifier(loaded)
    _check(loaded, path)
    opset = "".join(c for c in function.opset if c.isdigit())
    version = int(spec.specificationVersion)
    return Package(loaded, dict(spec.description.metadata.userDefined), _SYSTEMS.get(version, ""),
                   {"specification": version, "opset": int(opset or 0)}, classifier)  # fmt: skip


def _drop_classifier(function: Function) -> bool:
    """Take off a last operation that turns scores into a label, so that the scores are the answer.

    Returns:
        Whether there was one.
    """
    found = [op for op in function.operations if op.op_type == "classify"]
    if len(found) != 1:
        return False
    function.set_outputs([found[0].inputs["probabilities"]])
    labels = found[0].inputs["classes"].op
    function.remove_ops([*found, *([labels] if labels is not None else [])])
    return True


def specification(path: Path, ct: ModuleType) -> Model_pb2.Model:
    """Parse a package's `model.mlmodel`.

    Raises:
        BadInput: there is none, or it is damaged.
    """
    from google.protobuf.message import DecodeError

    if not (path / MODEL).is_file():
        raise BadInput(f"{path}: not a Core ML package (it has no {MODEL})")
    spec = ct.proto.Model_pb2.Model()
    try:
        spec.ParseFromString((path / MODEL).read_bytes())
    except DecodeError as error:
        raise BadInput(f"{path}: a damaged Core ML package; export it again") from error
    return spec


def manifest() -> str:
    """Manifest.json as coremltools writes it, with ids that stay the same."""
    entries = {}
    for path, what in ((MODEL, "Specification"), (WEIGHTS.parent, "Weights")):
        inside = path.relative_to("Data").as_posix()
        name = str(uuid.uuid5(_PARENT, inside)).upper()
        entries[name] = {"author": "com.apple.CoreML", "description": f"CoreML Model {what}",
                         "name": path.name, "path": inside}  # fmt: skip
    told = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries,
            "rootModelIdentifier": next(iter(entries))}  # fmt: skip
    return json.dumps(told, indent=4)


def _functions(spec: Model_pb2.Model, path: Path) -> list[tuple[str, MIL_pb2.Function]]:
    functions = list(spec.mlProgram.functions.items())
    if not functions:
        raise BadInput(f"{path}: a damaged Core ML package (no program); export it again")
    return functions


def _program(spec: Model_pb2.Model, path: Path) -> Program:
    from coremltools.converters.mil.frontend.milproto import load as milproto

    if milproto.BlobReader is None:
        raise MissingComponent("reading Core ML weights needs coremltools' native library, which "
                               "doesn't load on this system; reinstall coremltools")  # fmt: skip
    for file in _weight_files(spec):
        if not (path / WEIGHTS.parent / file).is_file():
            raise BadInput(f"{path}: its weights {file!r} are missing; copy the whole folder")
    try:
        return milproto.load(spec, specification_version=spec.specificationVersion,
                             file_weights_dir=str(path / WEIGHTS.parent))  # fmt: skip
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # coremltools and its native library raise whatever they like
        said = printable(str(error).strip().split("\n")[-1]) or type(error).__name__
        raise BadInput(f"{path}: coremltools can't read its program ({said})") from error


def _weight_files(spec: Model_pb2.Model) -> set[str]:
    """Names of the files that constants lie in."""
    return {
        attribute.blobFileValue.fileName.split("/")[-1]
        for function in spec.mlProgram.functions.values()
        for block in function.block_specializations.values()
        for operation in block.operations
        for attribute in operation.attributes.values()
        if attribute.HasField("blobFileValue")
    }


def _check(function: Function, path: Path) -> None:
    """One output, and sizes that are numbers."""
    if len(function.outputs) != 1:
        raise BadInput(f"{path}: its program has {len(function.outputs)} outputs; edgeres reads "
                       "programs of one")  # fmt: skip
    variables = [*function.inputs.values(), *(v for op in function.operations for v in op.outputs)]
    for var in variables:
        if not all(isinstance(d, int) or hasattr(d, "__index__") for d in var.shape or ()):
            raise BadInput(f"{path}: {var.name!r} has a flexible size; export it with a fixed one")


def printable(said: str) -> str:
    """A stranger's message, short and without control characters."""
    return "".join(c if c.isprintable() else " " for c in said[:200])


def numpy_dtype(var: Var) -> str:
    """The type of a coremltools `Var`: `fp16` -> `float16`; integers have numpy's names already."""
    name = str(var.dtype.__type_info__().name)
    return {"fp16": "float16", "fp32": "float32"}.get(name, name)
