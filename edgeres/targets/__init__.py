"""Targets: one module per file format, found by its name (edgeres.plugins).

A network (folded weights, and scales if it is quantized) flows into `export`; a file comes out.
`read` turns a file, ours or foreign, into a `FileGraph` that verification understands; `session`
runs it on this machine, where the format's runtime exists.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeres.disk import require_regular
from edgeres.errors import BadInput, MissingComponent
from edgeres.plugins import Plugins
from edgeres.targets._graph import FileGraph as FileGraph
from edgeres.targets._graph import FileOp as FileOp
from edgeres.targets._structure import Step as Step
from edgeres.targets._structure import Structure as Structure
from edgeres.types import ScaleTable, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from edgeres.models.modules import Classifier
    from edgeres.targets._compiled import Form

# TensorFlow 2.20 and 2.21 show their LLVM to the whole process, by mistake, and the next library
# with one of its own aborts: Triton, which PyTorch loads if it finds it. Without this module of
# theirs they don't (github.com/tensorflow/tensorflow/pull/124230 takes it out). It stands here and
# not where edgeres imports TensorFlow, because coremltools imports it too if it finds it.
sys.modules.setdefault("tensorflow.python.pywrap_dlopen_global_flags", None)  # type: ignore[arg-type]


_MOST_BYTES = 4 << 30


@dataclass(frozen=True)
class Source:
    """What a file is written from.

    Attributes:
        model: batch norm folded, evaluation mode.
        scales: as the precision needs them (`scales_for`); None for a float file.
        metadata: text that goes into the file where the format has a place for it.
        gpu: in the form that GPU delegates compute rightly, where the format knows one.
        npus: what it is compiled for, as runtimes are called, where the format is compiled.
    """

    model: Classifier
    scales: ScaleTable | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = False
    npus: tuple[str, ...] = ()


class Session(Protocol):
    """A loaded file that answers.

    Where it isn't the file's own runtime that answers, an attribute `stand_in` says what does.
    """

    def run(self, images: np.ndarray) -> np.ndarray:
        """Encoded images (N, ...) in the file's own type and layout -> its raw outputs (N, C)."""
        ...


class BatchSession(Session, Protocol):
    """The session of a file that takes any number of images at once."""

    def together(self, images: np.ndarray) -> np.ndarray:
        """As `run`, in one call."""
        ...


class Tracer(Protocol):
    """A loaded file that shows its work: what each operation answered."""

    def run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Encoded images -> `FileOp.output` -> codes or values, (N, C, H, W) or (N, C).

        Tensors that the runtime fuses away are left out; an integer tensor keeps its own type.
        """
        ...


class Target(Protocol):
    """What a target's module provides (PEP 544: a module fits, `self` is ignored)."""

    SUMMARY: str
    PRECISIONS: tuple[str, ...]
    SUFFIX: str  # of a package's target: one that doesn't end like one of edgeres' own
    PACKAGE: str  # what converts and runs it
    EXTRA: str | None  # edgeres' extra that brings the converter; None if always installed
    RUNTIME: str  # what runs its files on this machine: their own, or a stand-in
    # ANY_BATCH: bool  # optional: its files take any number of images, and are asked so
    # integer precision -> how its scales come from the trained ones (see `_schemes`)
    SCHEMES: Mapping[str, Callable[[ScaleTable], ScaleTable]]

    def export(self, source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
        """Write the file and return its input and output."""
        ...

    def read(self, path: Path) -> FileGraph:
        """Read a file as the runtime executes it (after the runtime's own optimizer, if any)."""
        ...

    def structure(self, path: Path, source: Source, precision: str) -> Structure:
        """Read a file exactly as it is stored, and all that it holds (see `_structure`).

        Args:
            source: what the file must have been written from.
        """
        ...

    def session(self, path: Path, threads: int = 1) -> Session | None:
        """Load a file on this machine; None where nothing here can run it."""
        ...

    def tracer(self, path: Path) -> Tracer | None:
        """Load a file so that every tensor can be seen, run by the same kernels as `session`.

        None where the runtime hides them.
        """
        ...

    # Optional: `refusals(path) -> list[str] | None`, a sentence for each thing that the runtime's
    # own parser refuses, where it can be asked without the device (None: it isn't installed).
    # Optional: `as_stored(path) -> FileGraph`, the file without the runtime's optimizer, where
    # `read` is with it.
    # Optional, of a format that may keep weights in other files: `beside(path) -> list[Path]`,
    # those files, and `whole(path, folder) -> Path`, one file with everything.
    # Optional: `cut(path, tensor, out) -> bool` writes the file's beginning, up to the output of a
    # `FileOp` (False: it can't end there), so that a runtime can be asked where it departs.
    # Optional: `missing() -> str | None`, why it can't be written here beside `PACKAGE`.
    # Optional: `COMPILED`, a form of `_compiled`, of a format that holds what compilers make.
    # Optional: `layer_file(shape, path) -> (input, output)` writes one int8 layer by itself, from
    # which tables of latencies are measured.


def _unfit(module: Target) -> str | None:
    """Why a package's target can't be one: whose files are whose, their names have to tell."""
    suffixes = [PLUGINS.load(m).SUFFIX for m in modules()]
    taken = [s for s in suffixes if module.SUFFIX.endswith(s)]
    return f"files that end on {taken[0]} are those of another target" if taken else None


PLUGINS = Plugins("target", __name__, Target, _unfit)


def modules() -> tuple[str, ...]:
    """The formats of edgeres, by module name."""
    return PLUGINS.own


def names() -> tuple[str, ...]:
    """Every target a recipe can name, as `<format>-<precision>`."""
    formats = {m: PLUGINS.load(m) for m in modules()} | {p.name: t for p, t in PLUGINS.usable()}
    return tuple(f"{name}-{p}" for name, module in formats.items() for p in module.PRECISIONS)


def load(name: str) -> tuple[Target, str]:
    """The module and the precision of a target such as `tflite-int8`.

    Raises:
        BadInput: no such target, or two packages have it.
        MissingComponent: it is a package's, and can't be used.
    """
    found, precision = PLUGINS.find(format_of(name)), name.rpartition("-")[2]
    if found is None or precision not in found.PRECISIONS:
        raise PLUGINS.unknown(name, names())
    return found, precision


def format_of(name: str) -> str:
    """The module's name of a target such as `tflite-int8`."""
    return name.rpartition("-")[0]


def installed(module: Target) -> bool:
    """Whether what converts and runs its files is there, without loading it."""
    try:
        return importlib.util.find_spec(module.PACKAGE) is not None
    except ImportError:  # of `a.b`, there is no a
        return False


def require(name: str) -> None:
    """Make sure that a target's converter is installed.

    Raises:
        BadInput: no such target.
        MissingComponent: its package, or its compiler, is not installed; names the mend.
    """
    module, _ = load(name)
    if not installed(module):
        extra = f"edgeres[{module.EXTRA}]" if module.EXTRA else "edgeres"
        if PLUGINS.of_package(format_of(name)):
            extra = module.PACKAGE
        raise MissingComponent(f"target '{name}' needs {module.PACKAGE}: pip install '{extra}'")
    lacks = getattr(module, "missing", lambda: None)()
    if lacks:
        raise MissingComponent(f"target '{name}' can't be written: {lacks}")


def compiled(name: str) -> Form | None:
    """How a target's files are compiled; None if they aren't."""
    return getattr(load(name)[0], "COMPILED", None)


def npus(only: Collection[str] | None = None) -> dict[str, str]:
    """What a file may be compiled for -> the target that is.

    Args:
        only: of these targets; None: of all.
    """
    asked = names() if only is None else only
    return {npu: name for name in asked if (form := compiled(name)) for npu in form.npus}


def as_runtimes_take(name: str) -> str:
    """The target whose files runtimes are asked about: what a compiled one was compiled from."""
    form = compiled(name)
    return form.of if form else name


def of_file(path: Path) -> tuple[str, Target]:
    """The format of a file, by its suffix (the longest that fits).

    Raises:
        BadInput: the file doesn't exist, is no regular file (or package of some), is larger than
            4 GiB, or no target writes such a suffix.
    """
    if not path.exists():
        raise BadInput(f"{path}: no such file")
    require_regular(path, _MOST_BYTES)
    suffixes = {PLUGINS.load(m).SUFFIX: m for m in modules()}
    fitting = [suffix for suffix in suffixes if path.name.endswith(suffix)]
    if not fitting:
        others = [(module.SUFFIX, p) for p, module in PLUGINS.usable()]
        for suffix in {suffix for suffix, _ in others if path.name.endswith(suffix)}:
            if len(same := [p for s, p in others if s == suffix]) > 1:
                raise PLUGINS.twice(f"*{suffix}", same)
        suffixes |= {suffix: p.name for suffix, p in others}
        fitting = [suffix for suffix in suffixes if path.name.endswith(suffix)]
    if not fitting:
        known = f"{path}: unknown model format; known: {', '.join(sorted(suffixes))}"
        raise BadInput("; ".join([known, *PLUGINS.troubles()]))
    name = suffixes[max(fitting, key=len)]  # `.trt.onnx` before `.onnx`
    return name, PLUGINS.load(name)


def is_integer(precision: str) -> bool:
    """Whether a precision is written from trained scales."""
    return precision.startswith("int")


def scales_for(name: str, trained: ScaleTable) -> ScaleTable:
    """The scale table of a target such as `tflite-int8`, from the trained one."""
    module, precision = load(name)
    return module.SCHEMES[precision](trained)


def stored_in_8_bits(name: str, table: ScaleTable) -> int:
    """How many weights of 4 bits a target's file stores in 8: it has the same codes, in more
    bytes."""
    four = sum(params.dtype == "int4" for params in table.values())
    return 0 if load(name)[1] == "int4" else four


def rounds_as_known(name: str) -> bool:
    """Whether files of a target such as `tflite-int8` compute with the trained scales, and not in
    an NPU, of which nobody says how it rounds."""
    from edgeres.targets import _schemes

    module, precision = load(name)
    own = module.SCHEMES.get(precision) is _schemes.as_trained
    return own and not hasattr(module, "COMPILED")


def require_scheme(name: str, scheme: str) -> None:
    """Make sure that a target such as `tflite-int8` can hold what a scheme trains.

    Raises:
        BadInput: it can't; names the scheme or the target that fits.
    """
    _, precision = load(name)
    if scheme == "w8a16" and precision != "int16x8":
        raise BadInput(
            f"target '{name}' has no 16-bit activations; for quantize.scheme w8a16 use "
            "tflite-int16x8, or set the scheme to w8a8"
        )
    if precision == "int4" and scheme != "w4a8":
        raise BadInput(
            f"target '{name}' stores weights of 4 bits, and quantize.scheme {scheme} has none: set "
            f"it to w4a8, or use {name.removesuffix('4')}8"
        )


def encode(x: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Normalized images (N, 3, H, W) float32 -> what a file's input takes (type, layout, codes)."""
    import numpy as np

    x = x.transpose(0, 2, 3, 1) if spec.layout == "NHWC" else x
    q = spec.quantization
    if q is None:
        return np.ascontiguousarray(x, dtype=spec.dtype)
    limits = np.iinfo(spec.dtype)
    # The runtimes and PyTorch multiply by the float32 reciprocal or divide: codes must not depend
    # on which, so a pixel-exact scale puts every value on an integer and rint absorbs the rest.
    codes = np.rint(x / np.float32(q.scale[0])) + q.zero_point[0]
    return np.ascontiguousarray(codes.clip(limits.min, limits.max).astype(spec.dtype))


def decode(outputs: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """A file's raw outputs (N, C) -> float32 logits."""
    import numpy as np

    q = spec.quantization
    if q is None:
        return outputs.astype(np.float32)
    return ((outputs.astype(np.int32) - q.zero_point[0]) * np.float32(q.scale[0])).astype("float32")
