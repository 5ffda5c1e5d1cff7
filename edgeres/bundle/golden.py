"""Golden inputs and outputs: written with a bundle, and asked again of its model anywhere."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import targets
from edgeres.bundle.archive import Contents
from edgeres.bundle.documents import MOST_BYTES, CertifiedFile, Golden, Tensor, parsed
from edgeres.errors import BadInput
from edgeres.types import ExportedFile

if TYPE_CHECKING:
    import numpy as np

SAMPLES = 8
FOLDER = "golden"
FILES = tuple(f"{FOLDER}/{name}" for name in ("golden.json", "inputs.npy", "inputs.bin",
                                              "outputs.npy", "outputs.bin"))  # fmt: skip
_HEADER_BYTES = 10_000


def tolerance(dtype: str) -> float:
    """How far an output of this type may be off: in codes, or in logits.

    Kernels round differently (two codes were seen between LiteRT's); a wrong model is far off.
    """
    return 1e-2 if dtype.startswith("float") else 3


def write(folder: Path, file: Path, exported: ExportedFile, images: np.ndarray) -> None:
    """Inputs as the file takes them and the outputs it gave here; .bin for apps without numpy.

    Args:
        images: (N, 3, H, W) float32, prepared as the network takes them.

    Raises:
        BadInput: nothing here runs the file, or the images are too few or all the same.
    """
    import numpy as np

    inputs = np.ascontiguousarray(targets.encode(images[:SAMPLES], exported.input))
    if len(inputs) < SAMPLES or _same(inputs):
        raise BadInput(f"the golden test needs {SAMPLES} test images that aren't all the same, and "
                       f"the run's test set starts with {len(inputs)}")  # fmt: skip
    _, target = targets.of_file(file)
    session = target.session(file)
    if session is None:
        raise BadInput(f"{file}: nothing here runs it, so it has no golden outputs")
    outputs = np.concatenate([session.run(sample[None]) for sample in inputs])
    folder.mkdir()
    for name, array in (("inputs", inputs), ("outputs", outputs)):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
        (folder / f"{name}.bin").write_bytes(array.tobytes())
    (folder / "golden.json").write_text(json.dumps({
        "model": f"model/{exported.file}", "samples": len(inputs),
        "input": {"shape": list(inputs.shape[1:]), "dtype": str(inputs.dtype)},
        "output": {"shape": list(outputs.shape[1:]), "dtype": str(outputs.dtype)},
        "tolerance": tolerance(str(outputs.dtype)),
        "made_by": getattr(session, "stand_in", "its runtime"),
    }, indent=1), "utf-8")  # fmt: skip


def read(contents: Contents, where: str) -> Golden:
    """How a bundle's golden test is meant.

    Raises:
        BadInput: its golden.json isn't one.
    """
    return parsed(Golden, contents.read(FILES[0], MOST_BYTES), f"{where}: {FILES[0]}")


def findings(golden: Golden, file: CertifiedFile, classes: int) -> Iterator[str]:
    """Where a golden test proves less than one that edgeres writes, or is about something else.

    Args:
        file: what the certificate says of the model; classes: how many labels there are.
    """
    if golden.model != f"model/{file.file}":
        yield "the golden test is about another file than the certificate"
    if golden.samples != SAMPLES:
        yield f"the golden test has {golden.samples} samples in place of {SAMPLES}"
    most = tolerance(golden.output.dtype)
    if golden.tolerance > most:
        yield f"the golden test allows {golden.tolerance:g}, and edgeres at most {most:g}"
    for what, mine, theirs in (("inputs", golden.input, file.input),
                               ("outputs", golden.output, file.output)):  # fmt: skip
        if (mine.shape, mine.dtype) != (theirs.shape[1:], theirs.dtype):
            yield f"the golden {what} are of another shape or type than the certified file's"
    if golden.output.shape != [classes]:
        yield f"labels.txt names {classes} classes, the model gives {golden.output.shape}"


def run(
    contents: Contents, golden: Golden, where: str
) -> tuple[dict[str, object] | None, list[str]]:
    """Ask the model, which has been examined; what came of it (None: nothing here runs it).

    Raises:
        BadInput: the arrays aren't what golden.json says, or the model can't be run.
    """
    import numpy as np

    try:
        inputs = _array(contents, "inputs", golden.input, golden.samples)
        expected = _array(contents, "outputs", golden.output, golden.samples)
        if _same(inputs):
            return None, ["the golden inputs are all the same"]
        model = contents.folder / golden.model
        _, target = targets.of_file(model)
        session = target.session(model)
        if session is None:
            return None, []
        outputs = np.concatenate([session.run(sample[None]) for sample in inputs])
    except (BadInput, MemoryError):
        raise
    except Exception as error:  # numpy parses a header as Python source; runtimes have their own
        raise BadInput(f"{where}: its golden test can't be run ({type(error).__name__})") from error
    if (outputs.shape, outputs.dtype) != (expected.shape, expected.dtype):
        return None, ["golden test: the model's answers are of another shape or type"]
    worst = float(np.abs(outputs.astype(np.float64) - expected.astype(np.float64)).max())
    same = bool((outputs.argmax(1) == expected.argmax(1)).all())
    run_by = getattr(session, "stand_in", "its runtime")
    found = {"worst": worst, "tolerance": golden.tolerance, "same_classes": same,
             "samples": len(inputs), "run_by": run_by}  # fmt: skip
    wrong = [] if worst <= golden.tolerance and same else [
        f"golden test: worst difference {worst:g}, allowed {golden.tolerance:g}, "
        f"classes {'same' if same else 'differ'}"
    ]  # fmt: skip
    return found, wrong


def _array(contents: Contents, name: str, tensor: Tensor, samples: int) -> np.ndarray:
    """`name`.npy, whose header says nothing else than golden.json, and which `name`.bin equals."""
    import numpy as np

    shape = (samples, *tensor.shape)
    size = int(np.prod(shape)) * np.dtype(tensor.dtype).itemsize
    raw = contents.read(f"{FOLDER}/{name}.bin", size)
    file = io.BytesIO(contents.read(f"{FOLDER}/{name}.npy", size + _HEADER_BYTES))
    np.lib.format.read_magic(file)
    if np.lib.format.read_array_header_1_0(file) != (shape, False, np.dtype(tensor.dtype)):
        raise BadInput(f"{FOLDER}/{name}.npy has another shape or type than golden.json says")
    if file.read() != raw or len(raw) != size:
        raise BadInput(f"{FOLDER}/{name}.npy and {name}.bin hold different values")
    return np.frombuffer(raw, tensor.dtype).reshape(shape)


def _same(inputs: np.ndarray) -> bool:
    return bool((inputs == inputs[:1]).all())
