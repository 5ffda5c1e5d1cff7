"""What a killed training needs to go on: the states of its parts and its position, in one file."""

from __future__ import annotations

import io
import math
import os
import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from edgeres.disk import storage_errors
from edgeres.errors import StorageError

EVERY_S = 10.0
_PATIENCE = 50  # saving may take 1/50 of the time


class Part(Protocol):
    """Something with a state: a network, an optimizer, an average."""

    def state_dict(self) -> object:
        """Tensors and plain values."""
        ...

    def load_state_dict(self, saved: Any) -> object:
        """Go on from there."""
        ...


class Keeper:
    """Saves a training's parts and position in `work`, there whole or not at all.

    Args:
        parts: name -> part; None where a training has no such part.
        writes: False in all but one of several processes, which all read the same file.
    """

    def __init__(self, work: Path, parts: Mapping[str, Part | None], writes: bool = True):
        self.path = work / "resume.pt"
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self._saved: dict[str, Any] | None = self._read()
        self._due = time.monotonic() + EVERY_S if writes else math.inf

    def position(self) -> dict[str, Any] | None:
        """Where the interrupted call was; None at the start."""
        return self._saved["position"] if self._saved else None

    def restore(self) -> None:
        """Bring the parts to where the interrupted call was, if there was one."""
        if self._saved:
            for name, part in self.parts.items():
                part.load_state_dict(self._saved[name])
            self._saved = None

    def save_now_and_then(self, **position: object) -> None:
        """Save, if it is time to."""
        begin = time.monotonic()
        if begin < self._due:
            return
        plain = {k: v.item() if isinstance(v, Tensor) else v for k, v in position.items()}
        states = {name: part.state_dict() for name, part in self.parts.items()}
        buffer = io.BytesIO()
        torch.save({"position": plain, **states}, buffer)
        temporary = self.path.with_suffix(".tmp")
        with storage_errors(self.path.parent):
            with temporary.open("wb") as stream:
                stream.write(buffer.getbuffer())
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.path)
        now = time.monotonic()
        self._due = now + max(EVERY_S, _PATIENCE * (now - begin))

    def _read(self) -> dict[str, object] | None:
        if not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            if all(name in saved for name in ("position", *self.parts)):
                return dict(saved)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):
            pass
        raise StorageError(f"{self.path}: is damaged; remove it and the training starts over")
