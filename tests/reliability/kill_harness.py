"""Kill a run again and again (kill -9), finish it, and compare with one that was left alone.

    python tests/reliability/kill_harness.py --kills 50 --seed 1

A life is a folder in which the same command is started and killed up to `--per-life` times, and
then left to finish. The kills:

- `moment`: at a random time, with everything it started;
- `storage`: right before its n-th change of the store or the run folder (n random): a file opened
  for writing, a folder made, a link, a removal;
- `rename`: the same, renames only: what was written lies there whole, under its old name;
- `pair`: two runs of the command at once on one store; one is killed, the other has to finish.

Each life also meets ctrl-C once, at a random time: code 130, and a sentence that says how to go on.
After each kill nothing may lie about that is bigger than one artifact. At the end of a life every
file has the bytes of the unkilled run's, every artifact the hashes that it names, and nothing is
left over.

The command runs in a fork of this process, which has loaded the libraries already: 50 kills would
otherwise be 50 times the same imports. `-9` reaches the fork's whole process group, converters
included.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # no threads before a fork

SHORT = """
name: short
data: {source: digits, size: 8, calibration: 32}
train: {epochs: 2, batch_size: 128}
teacher: {model: resnet8}
quantize: {method: ptq}
export: {targets: [onnx-int8]}
"""
LONG = """
name: long
data: {source: digits, size: 8, calibration: 32}
train: {epochs: 2, batch_size: 128}
teacher: {model: resnet8}
distill: {student: resnet8-w0.5}
prune: {macs: 0.9, max_drop: null}
quantize: {method: qat}
export: {targets: [onnx-int8, tflite-int8]}
verify: {agreement: 0, worst_codes: 255, mean_codes: 255, layer_codes: 255}
report: {}
"""
MODES = ("moment", "storage", "rename", "pair")
_WRITES = os.O_WRONLY | os.O_RDWR
Watcher = Callable[[int, int], bool]


@dataclass
class Outcome:
    """What became of all lives."""

    kills: Counter[str] = field(default_factory=Counter)
    interrupts: int = 0
    completed: int = 0
    where: Counter[str] = field(default_factory=Counter)  # the step that was at work
    largest_orphan: int = 0
    largest_artifact: int = 0
    faults: list[str] = field(default_factory=list)


class Trials:
    """Starts the command in a folder, as often as it takes."""

    def __init__(self, recipe: str) -> None:
        self.recipe = recipe
        _preload()

    def start(
        self, folder: Path, before: Watcher | None = None, prepare: Callable[[], None] | None = None
    ) -> int:
        """Fork the command.

        Args:
            before: of (storage steps, renames) until now, whether to die before this one.
            prepare: called in the fork.
        """
        if not (folder / "recipe.yaml").exists():  # another run may be reading it
            (folder / "recipe.yaml").write_text(self.recipe)
        child = os.fork()
        if child:
            return child
        code = 70
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(folder)
            log = os.open("log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            _watch(folder / "runs", before)
            if prepare:
                prepare()
            code = _command()
        finally:
            os._exit(code)

    def finish(self, folder: Path, before: Watcher | None = None) -> float:
        """Run the command to its end; seconds.

        Raises:
            AssertionError: it failed.
        """
        begin = time.monotonic()
        code = ended(self.start(folder, before))
        assert code == 0, f"exit code {code}: {(folder / 'log').read_text()[-2000:]}"
        return time.monotonic() - begin


def harness(recipe: str, kills: int, seed: int, per_life: int, root: Path) -> Outcome:
    """All kills, from one seed."""
    rng, outcome, trials = random.Random(seed), Outcome(), Trials(recipe)
    reference = root / "reference"
    seconds, steps = _counted(trials, reference)
    known = contents(reference)
    outcome.largest_artifact = max(_sizes(reference / "runs/store/artifacts").values())
    lives = 0
    while sum(outcome.kills.values()) < kills and not outcome.faults:
        lives += 1
        life = root / f"life {lives} – é"  # a path with spaces and more than ASCII, too
        life.mkdir()
        _interrupt(trials, life, rng.uniform(0, seconds), outcome)
        for _ in range(min(per_life, kills - sum(outcome.kills.values()))):
            mode = MODES[sum(outcome.kills.values()) % len(MODES)]
            if not _one(trials, life, mode, rng, seconds, steps, outcome):
                break
        try:
            trials.finish(life)
        except AssertionError as error:
            outcome.faults.append(f"life {lives}: {error}")
            break
        outcome.completed += 1
        outcome.faults += [f"life {lives}: {fault}" for fault in differences(life, known)]
    return outcome


def _one(
    trials: Trials, life: Path, mode: str, rng: random.Random, seconds: float,
    steps: tuple[int, int], outcome: Outcome,
) -> bool:  # fmt: skip
    """One try to kill; False if the command was faster."""
    changes, renames = steps
    if mode in ("moment", "pair"):
        first = trials.start(life)
        second = trials.start(life) if mode == "pair" else None
        time.sleep(rng.uniform(0, seconds))
        _kill(first)
        code = ended(first)
        if second is not None and (other := ended(second)) != 0:
            outcome.faults.append(f"the other run of a pair: code {other}, {last_words(life)}")
    else:
        chosen = rng.randint(1, (renames if mode == "rename" else changes) // 2)
        code = ended(trials.start(
            life, lambda n, renamed: (n == chosen) if mode == "storage" else renamed == chosen
        ))  # fmt: skip
    if code != -signal.SIGKILL:
        if code != 0:
            outcome.faults.append(f"{mode}: code {code}, {last_words(life)}")
        return False
    outcome.kills[mode] += 1
    outcome.where[_at_work(life)] += 1
    for name, size in orphans(life).items():
        outcome.largest_orphan = max(outcome.largest_orphan, size)
        if size > outcome.largest_artifact:
            outcome.faults.append(f"{mode}: left {name} with {size} bytes")
    return True


def _interrupt(trials: Trials, life: Path, after_s: float, outcome: Outcome) -> None:
    """Press ctrl-C: the terminal tells the whole process group."""
    child = trials.start(life)
    time.sleep(after_s)
    with contextlib.suppress(ProcessLookupError):  # it may not have its group yet
        os.killpg(child, signal.SIGINT)
    begin = time.monotonic()
    code = ended(child)
    if code == 0:  # it was faster
        return
    outcome.interrupts += 1
    said = last_words(life)
    if code != 130 or "the same command continues from here" not in said or "Traceback" in said:
        outcome.faults.append(f"ctrl-C after {after_s:.2f} s: code {code}, {said}")
    if time.monotonic() - begin > 30:
        outcome.faults.append(f"ctrl-C after {after_s:.2f} s: it took over 30 s to end")


def orphans(folder: Path) -> dict[str, int]:
    """What belongs to nothing: staging folders, and artifacts without a description."""
    store = folder / "runs" / "store"
    found = _sizes(store / "tmp")
    found |= {name: size for name, size in _sizes(store / "artifacts").items()
              if not (store / "artifacts" / name / "artifact.json").exists()}  # fmt: skip
    partial = [p for p in folder.glob("runs/*/**/.*") if not p.is_relative_to(store)]
    return found | {str(p): p.lstat().st_size for p in partial}


def contents(folder: Path) -> dict[str, str]:
    """Path -> sha256 of every file that the run made, but for times and figures of this machine."""
    files = sorted((folder / "runs" / "store" / "artifacts").glob("*/**/*"))
    kept = [p for p in files if p.is_file() and p.name not in ("artifact.json", "report.html",
                                                               "report.json")]  # fmt: skip
    return {str(p.relative_to(folder)): _sha256(p) for p in kept}


def differences(life: Path, known: dict[str, str]) -> Iterator[str]:
    """What a finished life has that the reference hasn't, and the other way round."""
    found = contents(life)
    for name in sorted(known.keys() | found.keys()):
        if known.get(name) != found.get(name):
            yield f"{name} differs"
    for name in orphans(life):
        yield f"{name} is left over"
    if work := list((life / "runs/store/work").iterdir()):
        yield f"{work[0]} is left over"
    for path in (life / "runs/store/artifacts").glob("*/artifact.json"):
        described = json.loads(path.read_text())["files"]
        for name, entry in described.items():
            if _sha256(path.parent / name) != entry["sha256"]:
                yield f"{path.parent.name}/{name} isn't what its description says"
    (lock,) = life.glob("runs/*/recipe.lock.yaml")
    if len(list((lock.parent / "artifacts").iterdir())) != len(
        list((life / "runs/store/artifacts").iterdir())
    ):
        yield "the run's links don't match the artifacts"


def _preload() -> None:
    import nncf  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch
    import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401

    from edgeres import cli, pipeline, stages  # noqa: F401
    from edgeres.commands import chain  # noqa: F401
    from edgeres.compression import graph, prune, ptq, qat  # noqa: F401
    from edgeres.training import keeper

    for stage in stages.ORDER:
        stages.load(stage)
    torch.set_num_threads(1)
    assert hasattr(keeper, "EVERY_S") and hasattr(keeper, "_PATIENCE")  # else nothing is set
    keeper.EVERY_S = keeper._PATIENCE = 0  # save every step, so that resuming is met too


def _command() -> int:
    from edgeres.__main__ import main

    sys.argv = ["edgeres", "run", "recipe.yaml"]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _watch(below: Path, before: Watcher | None) -> None:
    """Count this process's changes below a folder; die where `before` says so."""
    if before is None:
        return
    seen = Counter[str]()
    prefix = str(below)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            changes = bool(arguments[2] & _WRITES)
        else:
            changes = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink")
        if not changes:
            return
        paths = [p for p in arguments[:2] if isinstance(p, str | os.PathLike)]
        places = [os.path.abspath(p) for p in paths]  # noqa: PTH100  resolving would follow links
        if not any(place.startswith(prefix) for place in places):
            return
        seen["all"] += 1
        seen["renames"] += event == "os.rename"
        if before(seen["all"], seen["renames"] if event == "os.rename" else 0):
            os.killpg(0, signal.SIGKILL)

    sys.addaudithook(hook)


def _counted(trials: Trials, folder: Path) -> tuple[float, tuple[int, int]]:
    """Run the whole command: how long it takes, its storage steps, and the renames among them."""
    folder.mkdir()
    counts = folder / "counts"
    most = 0

    def note(n: int, renames: int) -> bool:
        nonlocal most
        most = max(renames, most)
        counts.write_text(f"{n} {most}")
        return False

    seconds = trials.finish(folder, note)
    n, renames = counts.read_text().split()
    return seconds, (int(n), int(renames))


def _kill(child: int) -> None:
    for stop in (os.killpg, os.kill):  # before it has its own group, it has no children either
        try:
            stop(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def ended(child: int) -> int:
    """Its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _at_work(life: Path) -> str:
    """The last step that was begun and not ended."""
    step = "start"
    for events in life.glob("runs/*/events.jsonl"):
        for line in events.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            step = event["step"] if event["event"] == "started" else f"after {event['step']}"
    return step


def last_words(folder: Path) -> str:
    """The end of what the command has said."""
    return (folder / "log").read_text()[-600:]


def _sizes(folder: Path) -> dict[str, int]:
    return {p.name: sum(f.stat().st_size for f in p.rglob("*") if f.is_file())
            for p in folder.glob("*")}  # fmt: skip


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """The command line; 0 if nothing was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-life", type=int, default=4)
    parser.add_argument("--short", action="store_true", help="The short recipe.")
    parser.add_argument("--hardships", action="store_true", help="Full disk and others, too.")
    parser.add_argument("--folder", type=Path, help="Where to work, and leave everything.")
    given = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        root = (given.folder or Path(scratch)).resolve()
        root.mkdir(parents=True, exist_ok=True)
        recipe = SHORT if given.short else LONG
        outcome = harness(recipe, given.kills, given.seed, given.per_life, root)
        met = {}
        if given.hardships:
            import hardships

            met = hardships.all_of(Trials(recipe), root, contents(root / "reference"))
    print(json.dumps({
        "seed": given.seed, "kills": dict(outcome.kills), "interrupts": outcome.interrupts,
        "completed": outcome.completed,
        "killed_in": dict(outcome.where), "largest_orphan_bytes": outcome.largest_orphan,
        "largest_artifact_bytes": outcome.largest_artifact, "faults": outcome.faults,
        "hardships": met,
        "seconds": round(time.monotonic() - begin),
    }, indent=1))  # fmt: skip
    return bool(
        outcome.faults or [v for v in met.values() if not v.startswith(("passed", "skipped"))]
    )


if __name__ == "__main__":
    sys.exit(main())
