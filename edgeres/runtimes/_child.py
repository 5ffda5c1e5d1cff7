"""Runs in a runtime's own environment and asks it about one file after another.

`python -I _child.py MODULE FOLDER`: FOLDER/job.json is what is asked; reply-N.json and
answers-N.npy are what came of the Nth file, each written when it is whole. Uses numpy and what the
runtime brings; edgeres isn't there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Question:
    """One file that a runtime is asked about.

    Attributes:
        name, option: which of the module's runtimes, and what it is there (`NAMES`).
        images: as the file takes them, to be gone through one by one; None if only the file is
            looked at.
        folder: where what it compiles goes.
        said: what the process, C++ included, has printed since the question began.
    """

    file: str
    name: str
    option: str
    images: Iterable[np.ndarray] | None
    folder: str
    said: Callable[[], str]


class Counted:
    """Images, (...) each; how many were taken is kept in a file."""

    def __init__(self, images: np.ndarray, progress: Path):
        self.images, self.progress = images, progress

    def __iter__(self) -> Iterator[np.ndarray]:
        for done, image in enumerate(self.images):
            self.progress.write_text(str(done), "utf-8")
            yield image


def main(module: str, folder: Path) -> None:
    """Ask about every file of the job."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    job = json.loads((folder / "job.json").read_text("utf-8"))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    spec = importlib.util.spec_from_file_location("_runtime", module)
    assert spec and spec.loader
    runtime = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runtime)
    for number, file in job["files"].items():
        found = _asked(runtime, job["name"], file, folder / f"compiled-{number}")
        outputs = found.pop("outputs", None)
        if outputs is not None:
            import numpy as np

            np.save(folder / f"answers-{number}.npy", outputs, allow_pickle=False)
        partial = folder / "reply.partial"
        partial.write_text(json.dumps(found), "utf-8")
        partial.rename(folder / f"reply-{number}.json")
    sys.stdout.flush()
    os._exit(0)  # what vendors do at exit may hang


def _asked(runtime: ModuleType, name: str, file: dict[str, Any], folder: Path) -> dict[str, Any]:
    images = None
    if file["images"]:
        import numpy as np

        loaded = np.load(file["images"], allow_pickle=False)
        images = Counted(loaded, folder.parent / "progress")
    shutil.rmtree(folder, ignore_errors=True)  # what a process that crashed left
    folder.mkdir()
    question = Question(file["path"], name, runtime.NAMES[name], images, str(folder), _said())
    try:
        return dict(runtime.ask(question))
    except MemoryError:
        return {"error": "it needs more memory than there is"}
    except Exception as error:  # a vendor raises whatever it likes
        return {"error": _sentence(error)}


def _sentence(error: Exception) -> str:
    """What an error says: of a whole traceback in its message, the last error's own line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    named = [line for line in lines if re.match(r"\w*(Error|Exception): ", line)]
    return (named or lines[:1])[-1][:300]


def _said() -> Callable[[], str]:
    """A reader of what standard output, a file, gets from now on."""
    begin = os.fstat(1).st_size

    def read() -> str:
        sys.stdout.flush()
        with Path("/proc/self/fd/1").open("rb") as said:
            said.seek(begin)
            return said.read(16 << 20).decode("utf-8", "replace")

    return read


def _die_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
