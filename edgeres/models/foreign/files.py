"""Which kind of file it is, by its first bytes, and what to do with those that hold no weights."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load as load_bytes

from edgeres.disk import require_regular
from edgeres.errors import BadInput
from edgeres.models.foreign import _pickle

MOST_BYTES = 8 << 30
_ONNX = "as a network it is onnx:FILE"
# What other files begin with, at which byte; what they are; the mend.
_OTHERS: tuple[tuple[int, bytes, str, str], ...] = (
    (4, b"TFL3", "a TFLite model", "as a network it is tflite:FILE"),
    (4, b"ET12", "an ExecuTorch program", "give the checkpoint that it was made from"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes it", "as a teacher it is keras:FILE"),
    (0, b"GGUF", "a GGUF file", "give the checkpoint that it was made from"),
    (0, b"\x08", "an ONNX model", _ONNX),
    (257, b"ustar", "a tar archive", "unpack it and give the file inside"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it and give the file inside"),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (0, b"<", "a web page", "download the file itself"),
)
# The same for zip archives, by an entry that others don't have.
_ARCHIVES: tuple[tuple[str, str, str], ...] = (
    ("constants.pkl", "a TorchScript program",
     "save its tensors: torch.save(torch.jit.load('{name}').state_dict(), 'weights.pth')"),
    ("archive_format", "an exported program (torch.export, .pt2)",
     "as a network it is torch:FILE"),
    ("serialized_exported_program.json", "an exported program (torch.export, .pt2)",
     "save its tensors: torch.save(dict(torch.export.load('{name}').state_dict), 'weights.pth')"),
    ("model.weights.h5", "a Keras model", "as a teacher it is keras:FILE"),
    ("data.pkl", "", ""),
)  # fmt: skip


def read(path: Path) -> object:
    """What a file of weights holds: dicts, lists, tensors (`Tensor` or `Stored`), inert objects.

    Raises:
        BadInput: no such file, a damaged one, or one that holds no weights.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such checkpoint file")
    require_regular(path, MOST_BYTES)
    try:
        return _reader(path)(path)
    except BadInput:
        raise
    except Exception as error:  # a damaged file makes the readers raise whatever they like
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path}: not a readable checkpoint ({first[:200]})") from error


def _reader(path: Path) -> Callable[[Path], object]:
    with path.open("rb") as file:
        head = file.read(300)
    if head[:2] == b"PK":
        return _archived(path)
    if head[:1] == b"\x80" and len(head) > 1:
        return _pickle.read_legacy
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return lambda path: load_bytes(path.read_bytes())
    for at, signature, what, mend in _OTHERS:
        if head[at : at + len(signature)] == signature:
            raise BadInput(f"{path}: is {what}, no checkpoint; {mend}")
    raise BadInput(f"{path}: not a readable checkpoint (its first bytes are of no known kind); "
                   "give a file of torch.save or a .safetensors file")  # fmt: skip


def _archived(path: Path) -> Callable[[Path], object]:
    with zipfile.ZipFile(path) as archive:
        entries = {name.rpartition("/")[2] for name in archive.namelist()}
    for entry, what, mend in _ARCHIVES:
        if entry in entries:
            if not what:
                return _pickle.read_zip
            raise BadInput(f"{path}: is {what}, no checkpoint; {mend.format(name=path.name)}")
    raise BadInput(f"{path}: is a zip archive of something else, no checkpoint; unpack it")
