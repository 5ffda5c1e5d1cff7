"""Runtimes: what runs or compiles a file elsewhere, asked on this machine.

A module in this folder is one runtime (or a family of them, `NAMES`), found by its file name. Its
`ask` runs in a process of its own, in an environment of its own (`_environment`), so that a crash,
a hang or a vendor's globals stay there; a file and images flow in, an `Answer` flows out.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from edgeres import scratch
from edgeres.disk import copy_whole, file_sha256, read_bounded, storage_errors
from edgeres.errors import BadInput, MissingComponent, unknown
from edgeres.runtimes import _environment
from edgeres.shape import count, list_of, text, wrong

if TYPE_CHECKING:
    import numpy as np

_LIMIT_S = 1800.0
_POLL_S = 0.05
_REPLY_BYTES, _ANSWER_BYTES, _LAST_BYTES = 4 << 20, 1 << 30, 64 << 10
_REPLY = {
    "version?": text, "device?": text, "taken?": count, "refused?": list_of(text, 0, 10_000),
    "memory_bytes?": {"*": count}, "cycles?": count, "error?": text,
}  # fmt: skip


class Module(Protocol):
    """What a module in this folder provides.

    It is loaded in the runtime's environment, too, where edgeres isn't: nothing of edgeres is
    imported, and what the runtime brings only inside functions.

    Optional: `ACCEPT = True`, its licence has to be accepted before it is installed; `GLIBC`, the
    lowest version of the C library; `missing() -> str | None`, what else this machine lacks;
    `HINT`, what to try where answers are too far away; `COMPILED`, names that only compile, and
    how. A
    file of its name in `locks` lists its packages; without one it is asked in edgeres' own
    environment.
    """

    SUMMARY: str
    NAMES: Mapping[str, str]  # what a person calls it -> the option that `ask` gets
    TAKES: tuple[str, ...]  # targets
    HOW: str  # whether it computes, simulates or estimates
    LICENCE: str
    LIMITS: Mapping[str, float]  # gates: agreement, worst_codes; of names that give answers

    def ask(self, question: Any) -> dict[str, Any]:
        """What it says of a file (`_child.Question`).

        Returns:
            version, device, taken (operators; None: all that aren't refused), refused (a sentence
            for each), memory_bytes (kind -> bytes), cycles, outputs (raw, one row per image), or
            error.
        """
        ...


@dataclass(frozen=True)
class Answer:
    """What a runtime says of one file; what it doesn't say is None or empty.

    Attributes:
        taken: operators that it computes itself; refused: a sentence for each that it doesn't.
        memory_bytes: kind of memory -> bytes. cycles: of one inference.
        outputs: raw, one row per image. compiled: files that it made.
        error: why there is no answer: its own sentence, or how it ended.
    """

    version: str = ""
    device: str = ""
    taken: int | None = None
    refused: tuple[str, ...] = ()
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    cycles: int | None = None
    outputs: np.ndarray | None = None
    compiled: tuple[Path, ...] = ()
    error: str = ""


def described(answer: Answer) -> dict[str, Any]:
    """An answer as JSON-ready facts, without outputs and files."""
    return {
        "version": answer.version, "device": answer.device, "taken": answer.taken,
        "refused": list(answer.refused), "memory_bytes": dict(answer.memory_bytes),
        "cycles": answer.cycles, "error": answer.error,
    }  # fmt: skip


def kept(answer: Answer, folder: Path | None) -> list[str]:
    """Copy what was compiled to a folder; the names, none if there is no folder."""
    if folder is not None and answer.compiled:
        keep(answer.compiled, folder)
        return [file.name for file in answer.compiled]
    return []


def keep(files: Iterable[Path], folder: Path) -> None:
    """Copy files into a folder, whatever else is in it.

    Raises:
        StorageError: it can't be made, or written to.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            copy_whole(file, folder / file.name)


def modules() -> tuple[str, ...]:
    """The runtimes, by module name."""
    return tuple(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def module(name: str) -> Module:
    """A runtime's module by its own name."""
    return cast("Module", importlib.import_module(f"edgeres.runtimes.{name}"))


@cache
def names() -> dict[str, str]:
    """What a person may ask -> the module that answers."""
    return {name: m for m in modules() for name in module(m).NAMES}


def load(name: str) -> Module:
    """The module of a runtime such as `tflm`.

    Raises:
        BadInput: no such runtime.
    """
    if name not in names():
        raise unknown("runtime", name, names())
    return module(names()[name])


def missing(name: str) -> str | None:
    """Why a runtime can't be asked here, and the mend; None if it can.

    Raises:
        BadInput: no such runtime.
    """
    found, own = load(name), names()[name]
    if _environment.lock(own) is not None:
        if unfit := unfitting(own):
            return unfit
        if not _environment.installed(own):
            return f"it isn't installed: edgeres runtimes install {name}"
    lacks = getattr(found, "missing", None)
    return cast("str | None", lacks()) if lacks else None


def installed(name: str) -> bool:
    """Whether a runtime's packages are there, or could not be on this machine."""
    own = names()[name]
    own_packages = _environment.lock(own) is not None and unfitting(own) is None
    return not own_packages or _environment.installed(own)


def sisters(name: str) -> list[str]:
    """The other runtimes that have the same environment."""
    return [other for other, own in names().items() if own == names()[name] and other != name]


def unfitting(own: str) -> str | None:
    """Why a module's packages can't be had on this machine; None if they can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "its packages are for Linux on x86-64"
    wanted = getattr(module(own), "GLIBC", (0, 0))
    said = platform.libc_ver()[1].split(".")
    have = tuple(int(part) for part in said[:2] if part.isdigit())
    if have and have < wanted:
        return (f"it needs glibc {'.'.join(map(str, wanted))} or newer; this system has "
                f"{'.'.join(said)}")  # fmt: skip
    return None


def require(name: str) -> None:
    """Make sure that a runtime can be asked.

    Raises:
        BadInput: no such runtime.
        MissingComponent: it can't be asked here; names the mend.
    """
    if why := missing(name):
        raise MissingComponent(f"runtime '{name}' can't be asked: {why}")


def answers(name: str) -> bool:
    """Whether a runtime gives answers; one that doesn't only compiles."""
    return name not in getattr(load(name), "COMPILED", {})


def how(name: str) -> str:
    """Whether a runtime computes, simulates or only compiles."""
    module = load(name)
    return cast("str", getattr(module, "COMPILED", {}).get(name, module.HOW))


def identity(name: str) -> str:
    """What a runtime's answers depend on beside the file: its module and its packages.

    Raises:
        BadInput: no such runtime.
    """
    load(name)
    own = names()[name]
    return f"{file_sha256(_source(own))[:12]} {_environment.digest(own)}"


def ask(
    name: str,
    files: Sequence[tuple[Path, np.ndarray | None]],
    folder: Path,
    waiting: Callable[[int], None] = lambda done: None,
    limit_s: float = _LIMIT_S,
) -> list[Answer]:
    """Ask a runtime about files, one after the other.

    In one process, and in a new one after each crash: the files before may be why.

    Args:
        files: with images (N, ...) in the file's own type and layout, or None: only looked at.
        folder: an empty one; what is compiled stays in it.
        waiting: called every now and then with the images done; may raise to give up.
        limit_s: for one image, or for compiling, in seconds.

    Raises:
        BadInput, MissingComponent: as `require`.
    """
    import numpy as np

    require(name)
    own = names()[name]
    jobs = []
    for number, (path, images) in enumerate(files):
        given = ""
        if images is not None:
            given = str(folder / f"images-{number}.npy")
            np.save(given, images, allow_pickle=False)
        jobs.append({"path": str(path.resolve()), "images": given})
    ends: dict[int, str] = {}
    todo = list(range(len(jobs)))
    while todo:
        job = {"name": name, "files": {str(number): jobs[number] for number in todo}}
        (folder / "job.json").write_text(json.dumps(job), "utf-8")
        end = _run(own, folder, waiting, limit_s)
        left = [number for number in todo if not (folder / f"reply-{number}.json").is_file()]
        if left[:1] == todo[:1]:  # nothing before it can be why
            ends[left.pop(0)] = end
        todo = left
    return [_answer(folder, number, images, ends.get(number, ""))
            for number, (_, images) in enumerate(files)]  # fmt: skip


def _run(own: str, folder: Path, waiting: Callable[[int], None], limit_s: float) -> str:
    """Let it answer; how it ended, if not well."""
    child = Path(__file__).with_name("_child.py")
    with (folder / "said.txt").open("wb") as said, scratch.folder("runtime") as work:
        process = subprocess.Popen(
            [str(_environment.python(own)), "-I", str(child), str(_source(own)), str(folder)],
            stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT, cwd=work,
            env=_environment.variables(work), start_new_session=True,
        )  # fmt: skip
        begin, late, done = time.monotonic(), False, -1
        try:
            while process.poll() is None and not late:
                if (now := _done(folder)) != done:
                    begin, done = time.monotonic(), now
                waiting(max(done, 0))
                time.sleep(_POLL_S)
                late = time.monotonic() - begin > limit_s
        finally:
            _environment.kill_group(process)
    if late:
        return f"no answer within {limit_s:g} s"
    if process.returncode == 0:
        return "it ended without an answer"
    code = process.returncode
    known = {member.value: member.name for member in signal.Signals}
    end = (f"it crashed ({known.get(-code, f'signal {-code}')})" if code < 0
           else f"it stopped with code {code}")  # fmt: skip
    return f"{end}; its last words: {_last_words(folder / 'said.txt')}"


def _done(folder: Path) -> int:
    """How many images it says that it has answered."""
    try:
        return int(read_bounded(folder / "progress", 20, "number"))
    except (OSError, ValueError, BadInput):
        return -1


def _source(own: str) -> Path:
    return Path(__file__).with_name(f"{own}.py")


def _last_words(path: Path) -> str:
    with path.open("rb") as said:
        said.seek(max(0, path.stat().st_size - _LAST_BYTES))
        lines = said.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip()[-300:] if lines else "none"


def _answer(folder: Path, number: int, images: np.ndarray | None, end: str) -> Answer:
    if not (folder / f"reply-{number}.json").is_file():
        return Answer(error=end)
    try:
        return _read(folder, number, images)
    except Exception as error:  # whatever a process that may be taken over has written
        return Answer(error=f"its answer can't be read ({type(error).__name__})")


def _read(folder: Path, number: int, images: np.ndarray | None) -> Answer:
    said = json.loads(read_bounded(folder / f"reply-{number}.json", _REPLY_BYTES, "answer"))
    if misfit := wrong(_REPLY, said):
        return Answer(error=f"its answer can't be read ({misfit})")
    outputs, answers = None, folder / f"answers-{number}.npy"
    if images is not None and answers.exists():
        outputs = _outputs(answers, len(images))
        if outputs is None:
            return Answer(error="its answers aren't one row of numbers for each image")
    below = folder / f"compiled-{number}"
    if below.is_symlink():
        return Answer(error="its folder is a link")
    compiled = tuple(sorted(p for p in below.iterdir() if p.is_file() and not p.is_symlink()))
    return Answer(
        said.get("version", ""), said.get("device", ""), said.get("taken"),
        tuple(said.get("refused", ())), said.get("memory_bytes", {}), said.get("cycles"),
        outputs, compiled, said.get("error", ""),
    )  # fmt: skip


def _outputs(path: Path, n: int) -> np.ndarray | None:
    import io

    import numpy as np

    data = io.BytesIO(read_bounded(path, _ANSWER_BYTES, "array"))
    found: np.ndarray = np.lib.format.read_array(data, allow_pickle=False)
    rows = found.dtype.kind in "iuf" and found.ndim >= 2 and len(found) == n
    return found if rows and found.size and np.isfinite(found).all() else None


def install(name: str, accept: bool, say: Callable[[str], None]) -> None:
    """Make a runtime's environment, with the packages that its lock file pins by hash.

    Args:
        accept: a licence that has to be accepted is.
        say: gets a line for people.

    Raises:
        BadInput: no such runtime.
        MissingComponent: it can't be had on this machine, its licence isn't accepted, or the
            packages can't be installed (the sentence says why).
    """
    found, own = load(name), names()[name]
    if _environment.lock(own) is None:
        require(name)
        say(f"{name}: nothing to install, it comes with edgeres")
        return
    if unfit := unfitting(own):
        raise MissingComponent(f"runtime '{name}' can't be installed: {unfit}")
    if _environment.installed(own):
        say(f"{name}: installed already")
        return
    if getattr(found, "ACCEPT", False) and not accept:
        raise MissingComponent(
            f"runtime '{name}' has a licence of its own: {found.LICENCE}; read it, and install "
            f"with --accept-licence: edgeres runtimes install {name} --accept-licence"
        )
    say(f"{name}: licence {found.LICENCE}")
    _environment.make(name, own)
    say(f"{name}: installed in {_environment.place(own)}")


def remove(name: str) -> bool:
    """Delete a runtime's environment; whether there was one.

    Raises:
        BadInput: no such runtime.
    """
    load(name)
    return _environment.remove(names()[name])
