"""Asking a runtime: files and images in, an `Answer` each out.

A crash, a hang, too much memory or a vendor's globals stay in the process that is asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import runtimes, scratch
from edgeres.disk import copy_whole, read_bounded, storage_errors
from edgeres.errors import BadInput
from edgeres.runtimes import _environment
from edgeres.shape import count, list_of, text, wrong

if TYPE_CHECKING:
    import numpy as np

_LIMIT_S = 1800.0
_MEMORY_SHARE = 0.75  # of this machine's
_POLL_S = 0.05
_REPLY_BYTES, _ANSWER_BYTES, _LAST_BYTES = 4 << 20, 1 << 30, 64 << 10
_REPLY = {
    "version?": text, "device?": text, "taken?": count, "refused?": list_of(text, 0, 10_000),
    "memory_bytes?": {"*": count}, "cycles?": count, "latency_ns?": count, "error?": text,
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What a runtime says of one file; what it doesn't say is None or empty.

    Attributes:
        taken: operators that it computes itself; refused: a sentence for each that it doesn't.
        memory_bytes: kind of memory -> bytes. cycles, latency_ns: of one inference.
        outputs: raw, one row per image. compiled: files that it made.
        error: why there is no answer: its own sentence, or how it ended.
    """

    version: str = ""
    device: str = ""
    taken: int | None = None
    refused: tuple[str, ...] = ()
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    cycles: int | None = None
    latency_ns: int | None = None
    outputs: np.ndarray | None = None
    compiled: tuple[Path, ...] = ()
    error: str = ""


def described(answer: Answer) -> dict[str, object]:
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


def ask(
    name: str,
    files: Sequence[tuple[Path, np.ndarray | None]],
    folder: Path,
    waiting: Callable[[int], None] = lambda done: None,
    limit_s: float = _LIMIT_S,
    limit_bytes: int | None = None,
) -> list[Answer]:
    """Ask a runtime about files, one after the other.

    In one process, and in a new one after each crash: the files before may be why.

    Args:
        files: with images (N, ...) in the file's own type and layout, or None: only looked at.
        folder: an empty one; what is compiled stays in it.
        waiting: called every now and then with the images done; may raise to give up.
        limit_s: for one image, or for compiling, in seconds.
        limit_bytes: of memory (`_resident`); None: three quarters of this machine's.

    Raises:
        BadInput, MissingComponent: as `require`.
    """
    import numpy as np

    runtimes.require(name)
    own = runtimes.module_name(name)
    if limit_bytes is None:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit_bytes = int(machine * _MEMORY_SHARE)
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
        end = _run(own, folder, waiting, limit_s, limit_bytes)
        left = [number for number in todo if not (folder / f"reply-{number}.json").is_file()]
        if left[:1] == todo[:1]:  # nothing before it can be why
            ends[left.pop(0)] = end
        todo = left
    return [_answer(folder, number, images, ends.get(number, ""))
            for number, (_, images) in enumerate(files)]  # fmt: skip


def _run(
    own: str, folder: Path, waiting: Callable[[int], None], limit_s: float, limit_bytes: int
) -> str:
    """Let it answer; how it ended, if not well."""
    child = Path(__file__).with_name("_child.py")
    with (folder / "said.txt").open("wb") as said, scratch.folder("runtime") as work:
        process = subprocess.Popen(
            [str(part) for part in (_environment.python(own), "-I", child,
                                    runtimes.source(own), folder)],
            stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT, cwd=work,
            env=_environment.variables(work), start_new_session=True,
        )  # fmt: skip
        begin, stopped, done = time.monotonic(), "", -1
        try:
            while process.poll() is None and not stopped:
                if (now := _done(folder)) != done:
                    begin, done = time.monotonic(), now
                waiting(max(done, 0))
                time.sleep(_POLL_S)
                if time.monotonic() - begin > limit_s:
                    stopped = f"no answer within {limit_s:g} s"
                elif _resident(process.pid) > limit_bytes:
                    stopped = (f"it was stopped at {limit_bytes / 2**30:.3g} GiB of memory; "
                               "ask it on a larger machine")  # fmt: skip
        finally:
            _environment.kill_group(process)
    if stopped:
        return stopped
    if process.returncode == 0:
        return "it ended without an answer"
    code = process.returncode
    known = {member.value: member.name for member in signal.Signals}
    end = (f"it crashed ({known.get(-code, f'signal {-code}')})" if code < 0
           else f"it stopped with code {code}")  # fmt: skip
    return f"{end}; its last words: {_last_words(folder / 'said.txt')}"


def _resident(pid: int) -> int:
    """Bytes that a process and those that it started have for themselves; 0 where there's no /proc.

    Watched, as the system's own limits count what is only reserved, too, and vendors' libraries
    reserve many times what they use.
    """
    total = 0
    for each in _family(pid):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it may end meanwhile
            _, resident, shared, *_ = Path(f"/proc/{each}/statm").read_text("ascii").split()
            total += (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    return total


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError, ValueError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text("ascii").split():
                yield from _family(int(child))


def _done(folder: Path) -> int:
    """How many images it says that it has answered."""
    try:
        return int(read_bounded(folder / "progress", 20, "number"))
    except (OSError, ValueError, BadInput):
        return -1


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
        said.get("latency_ns"),
        outputs, compiled, said.get("error", ""),
    )  # fmt: skip


def _outputs(path: Path, n: int) -> np.ndarray | None:
    import io

    import numpy as np

    data = io.BytesIO(read_bounded(path, _ANSWER_BYTES, "array"))
    found: np.ndarray = np.lib.format.read_array(data, allow_pickle=False)
    rows = found.dtype.kind in "iuf" and found.ndim >= 2 and len(found) == n
    return found if rows and found.size and np.isfinite(found).all() else None
