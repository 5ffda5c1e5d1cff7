"""What a compiler made of a file for NPUs, in a folder with that file.

    FILE.ethosu/model.tflite                      what was compiled, a tflite-int8 file
    FILE.ethosu/ethos-u55-128/model_vela.tflite   for a device: this one, by itself

Nobody reads what a vendor's compiler writes. So the file that was compiled is kept and verified as
any other, and then compiled anew: what comes out has to be what is stored.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from edgeres import runtimes, scratch
from edgeres.disk import storage_errors
from edgeres.errors import BadInput
from edgeres.runtimes._asking import ask
from edgeres.runtimes._environment import UNSET
from edgeres.targets import Session, Source, Tracer, load
from edgeres.targets._graph import FileGraph
from edgeres.targets._structure import Structure, folder_left_over
from edgeres.types import TensorSpec

_BLOCK = 64
_FILL = bytes([UNSET]) * 8
_MORE = 6  # times that it is compiled anew, at most, where a compiler leaves rubbish in its files


@dataclasses.dataclass(frozen=True)
class Form:
    """A compiler's folders.

    Attributes:
        of: the target whose file is compiled.
        npus: what it is compiled for, as runtimes are called.
        answered_by: the runtime that computes what all of them do, where they don't themselves.
        rubbish: which share of a file's blocks may hold memory that the compiler never set.
    """

    of: str
    npus: tuple[str, ...]
    answered_by: tuple[str, ...] = ()
    rubbish: float = 0.0

    def export(self, source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
        """Write the folder, with what is compiled for each of `source.npus` that is one of its own.

        Raises:
            BadInput: none is, or the compiler refuses the file.
            MissingComponent: the compiler isn't installed.
        """
        npus = [name for name in source.npus if name in self.npus]
        if not npus:
            raise BadInput(f"{path}: for which NPU? One of {', '.join(self.npus)}")
        target, _ = load(self.of)
        file = path / f"model{target.SUFFIX}"
        with storage_errors(path):
            path.mkdir(parents=True)
            ends = target.export(source, precision, file)
            for name in npus:
                (path / name).mkdir()
                for made, content in _compiled(name, file).items():
                    (path / name / made).write_bytes(content)
        return ends

    def missing(self) -> str | None:
        """Why it can't be compiled here, and the mend."""
        return runtimes.missing(self.npus[0])

    def inside(self, path: Path) -> Path:
        """The file that was compiled.

        Raises:
            BadInput: there is none.
        """
        file = path / f"model{load(self.of)[0].SUFFIX}"
        if path.is_symlink() or not path.is_dir() or file.is_symlink() or not file.is_file():
            raise BadInput(f"{path}: not a folder with {file.name} and what was compiled of it")
        return file

    def asked(self, path: Path) -> tuple[str, ...]:
        """The runtimes that know what it does: those that it is compiled for, and who answers."""
        return (*self._named(path), *self.answered_by)

    def _named(self, path: Path) -> list[str]:
        """What it is compiled for; links are not followed."""
        places = {name: path / name for name in self.npus}
        return [name for name, p in places.items() if p.is_dir() and not p.is_symlink()]

    def made(self, path: Path) -> list[Path]:
        """The files that the compiler made."""
        below = [file for name in self._named(path) for file in sorted((path / name).iterdir())]
        return [file for file in below if file.is_file() and not file.is_symlink()]

    def anew(self, path: Path) -> None:
        """Put in their place what it makes of the file that is there now.

        Raises:
            BadInput: it refuses the file.
            MissingComponent: it isn't installed.
        """
        for name in self._named(path):
            for made, content in _compiled(name, self.inside(path)).items():
                (path / name / made).write_bytes(content)

    def read(self, path: Path) -> FileGraph:
        """Read the file that was compiled."""
        return load(self.of)[0].read(self.inside(path))

    def structure(self, path: Path, source: Source, precision: str) -> Structure:
        """The file that was compiled as it is stored, and whether the rest was made of it.

        Raises:
            MissingComponent: the compiler isn't installed.
        """
        file = self.inside(path)
        found = load(self.of)[0].structure(file, source, precision)
        left_over = (*found.left_over, *self._left_over(path, file, source.npus))
        return dataclasses.replace(found, left_over=left_over)

    def _left_over(self, path: Path, file: Path, npus: tuple[str, ...]) -> Iterator[str]:
        names = self._named(path)
        if not names:
            yield "nothing in it is compiled for an NPU"
        for name in self.npus:
            if name in npus and name not in names:
                yield f"{name} is missing, which it was exported for: export it again"
        expected = [Path(file.name)]
        for name in names:
            made = _compiled(name, file)
            expected += [Path(name, each) for each in made]
            for each, content in made.items():
                stored = path / name / each
                if stored.is_symlink() or not stored.is_file():
                    yield f"{name}/{each} is missing: export it again"
                elif stored.stat().st_size != len(content) or not _same(
                    stored.read_bytes(), content, self.rubbish,
                    functools.partial(_again, name, file, each),
                ):  # fmt: skip
                    yield f"{name}/{each} isn't what the compiler makes of {file.name}"
        yield from folder_left_over(path, expected)

    def session(self, path: Path, threads: int = 1) -> Session | None:
        """The file that was compiled, in its own runtime."""
        target, _ = load(self.of)
        loaded = target.session(self.inside(path), threads)
        return _StandIn(loaded, target.RUNTIME) if loaded else None

    def tracer(self, path: Path) -> Tracer | None:
        """The file that was compiled, with every tensor."""
        return load(self.of)[0].tracer(self.inside(path))


class _StandIn:
    def __init__(self, session: Session, runtime: str):
        self.run = session.run
        self.together = getattr(session, "together", None)
        self.stand_in = f"{runtime}, with the file that was compiled"


def _compiled(name: str, file: Path) -> dict[str, bytes]:
    """What a compiler makes of a file, by name.

    Raises:
        BadInput: it refuses the file.
        MissingComponent: it isn't installed.
    """
    with scratch.folder("compile") as folder:
        (answer,) = ask(name, [(file, None)], folder)
        if answer.error or not answer.compiled:
            raise BadInput(f"{file}: can't be compiled for {name}: "
                           f"{answer.error or 'nothing came of it'}")  # fmt: skip
        return {made.name: made.read_bytes() for made in answer.compiled}


def _again(name: str, file: Path, each: str) -> bytes:
    return _compiled(name, file).get(each, b"")


def _same(stored: bytes, fresh: bytes, most: float, anew: Callable[[], bytes]) -> bool:
    """Whether a compiler may have made `stored` of a file.

    RKNN writes memory that it never set into its files, with other rubbish each time. Blocks with
    the byte that such memory is filled with, and those in which two files that it makes of the same
    network differ, tell nothing; all others have to be equal.

    Args:
        fresh: what it makes of it now; anew: makes it again.
        most: which share of the blocks may tell nothing.
    """
    if stored == fresh:
        return True
    if len(stored) != len(fresh) or not most:
        return False
    differing = _differing(stored, fresh)
    rubbish = _unset(fresh)
    for _ in range(_MORE):
        if differing <= rubbish:
            return True
        again = anew()
        if len(again) != len(fresh) or again == fresh:
            return False
        rubbish |= _unset(again) | _differing(fresh, again)
        if len(rubbish) * _BLOCK > most * len(fresh):
            return False
    return differing <= rubbish


def _differing(a: bytes, b: bytes) -> set[int]:
    """Which blocks of two contents of the same length differ."""
    return {i for i in range(0, len(a), _BLOCK) if a[i : i + _BLOCK] != b[i : i + _BLOCK]}


def _unset(content: bytes) -> set[int]:
    """Which blocks hold memory that was never set."""
    return {i for i in range(0, len(content), _BLOCK) if _FILL in content[i : i + _BLOCK]}
