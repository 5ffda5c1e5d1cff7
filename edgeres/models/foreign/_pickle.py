"""PyTorch's files read without PyTorch's loader: tensors become tensors, all else stays inert.

A pickle may name any function of any module and have it called. Here a name gives one of the few
functions below, which put tensors together, or a stand-in that does nothing: a Namespace, an
optimizer, a whole pickled network can then lie beside the weights, and no code of theirs runs.
Nothing that a pickle could change (a class, a module) is ever handed to it.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

import torch
from torch import Tensor

_MAGIC = 0x1950A86A20F9469CFC6C  # of files before PyTorch 1.6
_PROTOCOL = 1001
_DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16,
    "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
    "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool, "Untyped": torch.uint8,
}  # fmt: skip


class NotReadable(ValueError):
    """The bytes aren't what they should be; the message says in which way."""


class Inert:
    """Stands for an object of somebody's class: what it was made of, and nothing that acts.

    Attributes:
        kind: the class, as `module.name`.
        state: what it remembered (`__dict__`, or whatever its class kept).
        entries: of a mapping.
    """

    kind = ""

    def __new__(cls, *_: object, **__: object) -> Inert:
        self = object.__new__(cls)
        self.state, self.entries = None, {}
        return self

    state: object
    entries: dict[object, object]

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.entries[key] = value

    def append(self, _: object) -> None:
        """A member of a list or a set isn't looked for tensors."""

    extend = add = append


class _Closed:
    """What a pickle may hold but not change."""

    __slots__ = ("_inside",)

    def __init__(self, inside: object):
        object.__setattr__(self, "_inside", inside)

    def __setattr__(self, name: str, value: object) -> None:
        raise NotReadable("it changes what isn't its own")


class _Function(_Closed):
    """One of our functions."""

    __slots__ = ()

    def __call__(self, *args: object) -> object:
        return self._inside(*args)  # type: ignore[attr-defined]


class Stored(_Closed):
    """A tensor."""

    __slots__ = ()

    def tensor(self) -> Tensor:
        """The tensor."""
        return self._inside  # type: ignore[attr-defined,no-any-return]


class _Block(_Closed):
    """The numbers of one or more tensors, flat."""

    __slots__ = ()


class _Mapping(dict[object, object]):
    """A dict; the notes that PyTorch's state dicts carry beside their entries are dropped."""

    __slots__ = ()

    def __setstate__(self, _: object) -> None: ...


def _tensor(
    block: object, offset: int, size: Sequence[int], stride: Sequence[int], *_: object
) -> Stored:
    return _stored(_flat(block), offset, size, stride)


def _stored(flat: Tensor, offset: int, size: Sequence[int], stride: Sequence[int]) -> Stored:
    if math.prod(size) > flat.numel():
        raise NotReadable(f"a tensor of {size} has only {flat.numel()} numbers")
    return Stored(torch.as_strided(flat, size, stride, offset))  # refuses what lies outside


def _typed(
    block: object, offset: int, size: Sequence[int], stride: Sequence[int],
    _g: object, _h: object, dtype: torch.dtype, *_: object,
) -> Stored:  # fmt: skip
    return _stored(_flat(block).view(dtype), offset, size, stride)


def _flat(block: object) -> Tensor:
    if not isinstance(block, _Block):
        raise NotReadable("a tensor without numbers")
    return block._inside  # type: ignore[attr-defined,no-any-return]


_PLAIN: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _Mapping,
    "collections.defaultdict": lambda *_: _Mapping(),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": lambda call, _type, args, _state: call(*args),
    "torch.Size": tuple,
}
"""What a file may call; every other name is inert."""


class _Unpickler(pickle._Unpickler):
    """The one written in Python: the one in C takes as much memory as a number in the file says."""

    def __init__(self, stream: BinaryIO, storage: Callable[[object], object]):
        super().__init__(stream)
        self._storage, self._stand_ins = storage, dict[str, type[Inert]]()

    def find_class(self, module: str, name: str) -> object:
        kind = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if kind in _PLAIN:
            return _Function(_PLAIN[kind])
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return _DTYPES.get(name.removesuffix("Storage"))
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        if kind not in self._stand_ins:
            self._stand_ins[kind] = type("Inert", (Inert,), {"kind": kind[:80]})
        return self._stand_ins[kind]

    def persistent_load(self, pid: object) -> object:
        return self._storage(pid)


def _unpickled(stream: BinaryIO, storage: Callable[[object], object]) -> object:
    """The next object of a stream."""
    return _Unpickler(stream, storage).load()


def _nothing(_: object) -> NoReturn:
    raise NotReadable("a tensor where none is expected")


def _named(pid: object) -> tuple[torch.dtype, str, int, tuple[str, int, int] | None]:
    """Type, key, count of numbers and view of a stored block, as `persistent_id` wrote it."""
    if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"):
        raise NotReadable("a storage without a name")
    dtype, key, count = pid[1], str(pid[2]), pid[4]
    if not isinstance(dtype, torch.dtype) or not isinstance(count, int) or count < 0:
        raise NotReadable("it holds numbers of a kind that isn't read (quantized or sparse)")
    return dtype, key, count, pid[5] if len(pid) == 6 else None


def read_zip(path: Path) -> object:
    """The object in a file of `torch.save`; a damaged file raises anything."""
    with zipfile.ZipFile(path) as archive:
        return _of_archive(archive, path.stat().st_size)


def _of_archive(archive: zipfile.ZipFile, left: int) -> object:
    pickles = [n for n in archive.namelist() if n.endswith("data.pkl") and n.count("/") <= 1]
    if len(pickles) != 1:
        raise NotReadable("it is a zip file without data.pkl, not one of torch.save")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in archive.namelist() and _entry(archive, order).decode() != sys.byteorder:
        raise NotReadable("it was written on a machine of another byte order")
    known: dict[str, Tensor] = {}

    def storage(pid: object) -> _Block:
        dtype, key, count, _ = _named(pid)
        if key not in known:
            content = bytearray(_entry(archive, f"{root}data/{key}"))
            nonlocal left
            left -= len(content)
            if left < 0:
                raise NotReadable("its blocks lie in one another")
            flat = (
                torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            )
            if flat.numel() < count:
                raise NotReadable(f"block {key[:20]} is cut short")
            known[key] = flat
        return _Block(known[key])

    return _unpickled(io.BytesIO(_entry(archive, pickles[0])), storage)


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise NotReadable("it is compressed, which torch.save never does")
    return archive.read(info)


def read_legacy(path: Path) -> object:
    """The object in a file of `torch.save` before PyTorch 1.6: pickles, then blocks of numbers; a
    damaged file raises anything."""
    left = path.stat().st_size
    blocks: dict[str, Tensor] = {}

    def storage(pid: object) -> object:
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":
            return pid[1]  # a class, with its source code, which isn't looked at
        dtype, key, count, view = _named(pid)
        if key not in blocks:
            nonlocal left
            left -= count * dtype.itemsize
            if left < 0:
                raise NotReadable("it claims more numbers than it holds")
            blocks[key] = torch.empty(count, dtype=dtype)
        return _Block(blocks[key] if view is None else blocks[key][view[1] : view[1] + view[2]])

    with path.open("rb") as file:
        if _unpickled(file, _nothing) != _MAGIC or _unpickled(file, _nothing) != _PROTOCOL:
            raise NotReadable("it is no file of torch.save")
        about = _unpickled(file, _nothing)
        if not isinstance(about, dict) or about.get("little_endian") is not True:
            raise NotReadable("it was written on a machine of another byte order")
        found = _unpickled(file, storage)
        for key in _keys(_unpickled(file, _nothing), blocks):
            header, block = file.read(8), blocks[key]
            content = bytearray(file.read(block.nbytes))
            if len(header) < 8 or struct.unpack("<q", header)[0] != block.numel():
                raise NotReadable("a block of another length than it claims")
            if len(content) < block.nbytes:
                raise NotReadable("it is cut short")
            if content:
                block.copy_(torch.frombuffer(content, dtype=block.dtype))
    return found


def _keys(found: object, blocks: dict[str, Tensor]) -> Iterator[str]:
    if not isinstance(found, list) or sorted(map(str, found)) != sorted(blocks):
        raise NotReadable("its blocks aren't those of its tensors")
    return map(str, found)
