"""Feed edgeres what it should refuse, by the thousand.

    python tests/fuzz/long.py --cases 10000 --seed 1 [--only recipe]

Each case is a good input with random changes (mutate.py), made from the seed, the surface's name and
its number alone, so that a fault can be repeated: `--only SURFACE --first N --cases 1`.

A case may be taken or refused in one sentence (an EdgeresError). Faults: any other exception, more
than 10 s, more than 2 GB, and a file whose C++ reader crashes or takes too much where the child that
edgeres reads such files in (`examine`) does not turn that into a sentence.

Cases run in forks of this process, which has loaded the libraries already, twenty to a fork; a
fork that dies takes only its case with it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"  # no threads before a fork
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

LIMIT_S = 10
LIMIT_BYTES = 2 << 30
_BATCH = 20


@dataclass
class Found:
    """What came of the cases of one surface."""

    cases: Counter[str] = field(default_factory=Counter)  # taken, refused, contained
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    most_bytes: int = 0


def case(surface: Any, seed: int, number: int) -> bytes:
    """The bytes of one case."""
    digest = hashlib.sha256(f"{seed} {surface.name} {number}".encode()).digest()
    rng = random.Random(digest)
    seeds = surface.seeds()
    as_they_are = [*seeds, *surface.bombs()]
    if number < len(as_they_are):
        return bytes(as_they_are[number])
    return bytes(surface.change(rng.choice(seeds), rng))


def fuzz(surface: Any, seed: int, numbers: Sequence[int], scratch: Path) -> Found:
    """Run cases of one surface."""
    found = Found()
    left = list(numbers)
    while left:
        batch, left = left[:_BATCH], left[_BATCH:]
        said, status = _forked(surface, seed, batch, scratch)
        done = 0
        for number, (kind, what, seconds) in zip(batch, said, strict=False):
            done += 1
            found.slowest_s = max(found.slowest_s, seconds)
            if kind == "fault" and not surface.native:
                found.faults.append(f"{surface.name} {number}: {what}")
            found.cases[kind if kind != "fault" or not surface.native else "refused"] += 1
        if status.peak:
            found.most_bytes = max(found.most_bytes, status.peak)
        if done < len(batch):  # it died of this one
            number = batch[done]
            left = batch[done + 1 :] + left
            _died(surface, seed, number, status, found, scratch)
    return found


@dataclass(frozen=True)
class Status:
    """How a fork ended."""

    signal: int
    peak: int


def _died(
    surface: Any, seed: int, number: int, status: Status, found: Found, scratch: Path
) -> None:
    how = signal.Signals(status.signal).name if status.signal else "an exit"
    if not surface.native:
        found.faults.append(f"{surface.name} {number}: died of {how}")
        found.cases["fault"] += 1
        return
    from edgeres.errors import BadInput
    from edgeres.targets._conversion import examine

    path = _written(surface, case(surface, seed, number), scratch)
    begin = time.monotonic()
    try:
        if path.suffix in (".tflite", ".onnx", ".pte"):
            examine(path)
    except BadInput as error:
        if "\n" in str(error):
            found.faults.append(f"{surface.name} {number}: more than a sentence: {error}")
    except Exception as error:
        found.faults.append(f"{surface.name} {number}: {type(error).__name__}: {error}")
    if time.monotonic() - begin > 150:
        found.faults.append(f"{surface.name} {number}: examining it took too long")
    found.cases["contained"] += 1


def _forked(
    surface: Any, seed: int, batch: Sequence[int], scratch: Path
) -> tuple[list[tuple[str, str, float]], Status]:
    log = scratch / "said"
    log.write_bytes(b"")
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            _in_the_fork(surface, seed, batch, scratch, log)
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    said = [tuple(json.loads(line)) for line in log.read_text().splitlines()]
    code = os.waitstatus_to_exitcode(status)
    return said, Status(-code if code < 0 else 0, usage.ru_maxrss * 1024)  # type: ignore[return-value]


def _in_the_fork(surface: Any, seed: int, batch: Sequence[int], scratch: Path, log: Path) -> None:
    from edgeres.errors import EdgeresError

    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    now = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (now + LIMIT_BYTES, now + LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with log.open("a") as out:
        for number in batch:
            path = _written(surface, case(surface, seed, number), scratch)
            begin = time.monotonic()
            kind, what = "taken", ""
            signal.setitimer(signal.ITIMER_PROF, LIMIT_S)  # of processor time: others work here too
            try:
                surface.feed(path)
            except EdgeresError as error:
                kind, what = "refused", str(error)
                if not what.strip() or len(what) > 20_000:
                    kind = "fault"
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)
                ours = [f for f in where if "/edgeres/" in f.filename][-1:] or where[-1:]
                place = f"{Path(ours[0].filename).name}:{ours[0].lineno}" if ours else "?"
                kind, what = "fault", f"{type(error).__name__} at {place}: {str(error)[:150]}"
            signal.setitimer(signal.ITIMER_PROF, 0)
            out.write(json.dumps([kind, what[:400], time.monotonic() - begin]) + "\n")
            out.flush()


def _written(surface: Any, data: bytes, scratch: Path) -> Path:
    folder = scratch / "case"
    folder.mkdir(exist_ok=True)
    path = folder / f"case{surface.suffix}"
    path.write_bytes(data)
    return path


def preload() -> None:
    """Load what the forks need."""
    import ai_edge_litert.interpreter
    import onnx
    import onnxruntime
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    Image.init()
    assert onnx and onnxruntime and ai_edge_litert
    from edgeres import listing, targets
    from edgeres.errors import MissingComponent
    from edgeres.targets import coreml

    with contextlib.suppress(MissingComponent):
        coreml._coremltools()  # before ExecuTorch: of what it would load of that, nothing is used
    with contextlib.suppress(ImportError):
        import executorch.runtime

        assert executorch

    for name in targets.modules():
        targets.PLUGINS.load(name)
    assert listing


def main() -> int:
    """The command line; 0 if there was no fault."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=10_000, help="In all, shared out.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="One surface.")
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    preload()
    import surfaces  # after the threads are set

    begin, rows, faults = time.monotonic(), {}, []
    with tempfile.TemporaryDirectory() as folder:
        known = surfaces.all_of(Path(folder))
        known = [s for s in known if given.only in (None, s.name)]
        each = max(given.cases // max(len(known), 1), 1)
        for surface in known:
            found = fuzz(surface, given.seed, range(given.first, given.first + each), Path(folder))
            faults += found.faults
            rows[surface.name] = {
                **found.cases, "slowest_s": round(found.slowest_s, 2),
                "most_mb": round(found.most_bytes / 1e6), "faults": len(found.faults),
            }  # fmt: skip
            print(
                surface.name,
                rows[surface.name],
                *found.faults[:20],
                sep="\n  ",
                file=sys.stderr,
                flush=True,
            )
    total = sum((Counter({k: v for k, v in row.items() if k in ("taken", "refused", "contained", "fault")})
                 for row in rows.values()), Counter())  # fmt: skip
    print(json.dumps({
        "seed": given.seed, "cases": sum(total.values()), **total, "faults": faults,
        "surfaces": rows, "seconds": round(time.monotonic() - begin),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }, indent=1))  # fmt: skip
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
