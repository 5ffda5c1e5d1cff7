"""Run folders as somebody might send them: every document, name and file of one changed at random.

    python tests/fuzz/run_folders.py --cases 5000 --seed 1

Each case is the stored run with a few changes: values of another kind, missing keys, huge numbers, deep
nesting, names that lead elsewhere, links, pipes, broken text; half the time with all hashes made to fit
again, as somebody who means it would do. It lies beside a whole run, in a fresh folder that also holds a
file which nothing may touch. Every command then meets it. Faults: any exception but an EdgeresError,
anything changed outside the run's own folder and the store, and a command on the whole run that fails.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import mutate  # noqa: E402
import stored  # noqa: E402

from edgeres.errors import EdgeresError  # noqa: E402

GOOD = "good"
ODD_NAMES = [
    "../../out",
    "/tmp/edgeres-out",
    "..",
    "a/../../b",
    ".hidden",
    "\x1b[31mx",
    "x" * 300,
    "nul\0",
    "",
]


def case(good: Path, place: Path, rng: random.Random) -> Path:
    """A fresh folder of runs: a whole one, a changed one, their store, and a bystander."""
    shutil.copytree(good, place, symlinks=True)
    (place / "bystander").write_text("mine")
    run = place / "runs" / "v1-d6066a"
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice([_document, _document, _document, _entry, _names, _bytes])(run, rng, place)
    return run


def _own(run: Path) -> list[Path]:
    """Files and folders that somebody who sends a run sends with it."""
    return [p for p in sorted(run.rglob("*")) if not p.is_symlink()]


def _document(run: Path, rng: random.Random, place: Path) -> None:
    """Another document; its hash is made to fit half the time."""
    texts = [p for p in _own(run) if p.suffix in (".json", ".jsonl", ".yaml") and p.is_file()]
    if not texts:
        return
    path = rng.choice(texts)
    try:
        path.write_bytes(mutate.mutated_json(path.read_bytes(), rng) if path.suffix == ".json"
                         else mutate.mutated(path.read_bytes(), rng))  # fmt: skip
    except (ValueError, RecursionError):
        path.write_bytes(mutate.mutated(path.read_bytes(), rng))
    _forge(run, path, rng)


def _bytes(run: Path, rng: random.Random, place: Path) -> None:
    """Other contents of any file."""
    files = [p for p in _own(run) if p.is_file() and p.suffix != ".json"]
    if files:
        path = rng.choice(files)
        path.write_bytes(mutate.mutated(path.read_bytes(), rng))
        _forge(run, path, rng)


def _forge(run: Path, path: Path, rng: random.Random) -> None:
    if rng.random() < 0.7:
        folder = next((p for p in path.parents if p.parent == run / "artifacts"), None)
        if folder:
            with contextlib.suppress(Exception):  # nothing to make fit any more
                stored.forged(folder, lambda d: None)
                _follow(run)


def _follow(run: Path) -> None:
    """Make parents' digests fit, so that what is behind is met too."""
    known = {}
    for path in (run / "artifacts").iterdir():
        with contextlib.suppress(Exception):
            d = json.loads(stored.plain_bytes(path / "artifact.json"))
            known[d["stage"], d["key"]] = d["digest"]
    for path in (run / "artifacts").iterdir():
        with contextlib.suppress(Exception):

            def follow(document: dict[str, Any]) -> None:
                for parent in document["parents"].values():
                    parent["digest"] = known.get((parent["stage"], parent["key"]), parent["digest"])

            stored.forged(path, follow)


def _entry(run: Path, rng: random.Random, place: Path) -> None:
    """Something else in place of a file or a folder."""
    known = _own(run)
    if not known:
        return
    path = rng.choice(known)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    kind = rng.randrange(6)
    if kind == 0:
        path.symlink_to(place / "bystander")
    elif kind == 1:
        path.symlink_to(
            rng.choice(["/etc", "/etc/passwd", "/dev/zero", "..", "nowhere", str(path)])
        )
    elif kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        path.mkdir()
    elif kind == 4:
        path.write_bytes(
            rng.choice([b"", b"\xff\xfe\x00", b"[" * 20_000, b"0" * 1000, b'{"a": 1e999}'])
        )


def _names(run: Path, rng: random.Random, place: Path) -> None:
    """Another name where a description names something."""
    paths = [p for p in _own(run) if p.name in ("artifact.json", "spec.json", "verify.json")]
    if not paths:
        return
    path, odd = rng.choice(paths), rng.choice(ODD_NAMES)
    with contextlib.suppress(Exception):
        document = json.loads(stored.plain_bytes(path))
        for _ in range(3):
            at: Any = document
            while isinstance(at, (dict, list)) and at:
                key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
                if isinstance(at[key], str):
                    at[key] = odd
                    break
                if isinstance(at[key], dict) and rng.random() < 0.2:
                    at[key] = dict.fromkeys([odd], next(iter(at[key].values()), None))
                at = at[key]
        path.write_text(json.dumps(document))
    _forge(run, path, rng)


def commands(place: Path, quick: bool) -> dict[str, Callable[[Path], object]]:
    """Everything that a person may do with a run."""
    from edgeres import listing, pipeline, runs
    from edgeres.commands import (
        bundle,
        chain,
        check,
        compare,
        files,
        housekeeping,
        registry,
        results,
        track,
    )
    from edgeres.measurement.compare import Tolerance
    from edgeres.recipe import load

    folder = place / "runs"
    (limits := place / "limits.yaml").write_text("budgets:\n- {size_kb: 100}\n- {agreement: 0.5}\n")

    def planned(run: Path) -> object:
        recipe = load(run / "recipe.lock.yaml")
        return list(pipeline.plan(recipe, pipeline.steps(recipe)[:1], runs.store_of(folder)))

    cheap: dict[str, Callable[[Path], object]] = {
        "list": lambda run: listing.text(listing.rows("runs", folder)),
        "clean": lambda run: housekeeping.cleaned(folder, False),
        "promote": lambda run: registry.promoted(run.name, "canary", "why", folder),
        "@canary": lambda run: runs.find_run("@canary", folder),
        "check": lambda run: check.checked(str(run), limits, folder, None, None),
        "compare": lambda run: compare.compared([str(run), GOOD], Tolerance(), [], "quick", folder, True),
        "results": lambda run: results.reports(str(run), folder),
        "origin": lambda run: chain.origin(str(run), None, folder),
        "origin of an artifact": lambda run: chain.origin(str(run / "artifacts" / "quantize"), None, folder),
        "track": lambda run: _tracked(run, folder),
        "plan": planned,
        "event": lambda run: runs.event(runs.Run(run), step="x"),
    }  # fmt: skip
    slow: dict[str, Callable[[Path], object]] = {
        "bundle": lambda run: bundle.bundled(
            str(run), "web-service", place / "b.zip", None, folder
        ),
        "report": lambda run: housekeeping.reported(str(run), folder),
        "verify": lambda run: files.verified([str(run)], None, folder, True),
        "track": lambda run: track.tracked(str(run), "tensorboard", "x", folder),
    }
    return cheap if quick else cheap | slow


def _tracked(run: Path, folder: Path) -> object:
    from edgeres import tracking
    from edgeres.recipe import to_mapping
    from edgeres.runs import find_run

    found = find_run(str(run), folder)
    return tracking.described(found.name, to_mapping(found.recipe), found.artifacts, found.path)


def outside(place: Path, run: Path) -> dict[str, str]:
    """What lies beside the run's own folder, but for what commands are asked to write there."""
    mine = ("store/", "registry/", f"{run.name}/", f"{run.name}")
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        below = name.removeprefix("runs/")
        if below.startswith(mine) or name in (
            "b.zip",
            "limits.yaml",
            "runs",
            "runs/store",
            "runs/registry",
        ):
            continue
        content = (
            path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        )
        found[name] = hashlib.sha256(repr(content).encode()).hexdigest()
    return found


def fuzz(cases: int, seed: int, first: int = 0, slow_every: int = 10) -> dict[str, Any]:
    """Run cases; what came of them."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        good = _beside(Path(scratch))
        for number in range(first, first + cases):
            rng = random.Random(f"{seed} {number}")
            place = Path(scratch, "case")
            shutil.rmtree(place, ignore_errors=True)
            run = case(good, place, rng)
            before = outside(place, run)
            slow = number % slow_every == 0
            asked = commands(place, quick=not slow)
            for name, ask in asked.items():
                taken = _asked(f"case {number}: {name}", partial(ask, run), faults)
                counts["taken" if taken else "refused"] += 1
            if outside(place, run) != before:
                faults.append(f"case {number}: something outside the run was changed")
            whole = run.with_name(GOOD)
            expected = ("promote", "check", "list", "clean", *(["bundle"] if slow else []))
            for name in expected:
                what = f"case {number}: {name} on the whole run"
                if not _asked(what, partial(asked[name], whole), faults):
                    faults.append(f"{what} was refused")
    return {"cases": cases, "seed": seed, **counts, "faults": faults,
            "seconds": round(time.monotonic() - begin)}  # fmt: skip


def _beside(scratch: Path) -> Path:
    """A folder of two whole runs with their artifacts in them, as somebody sends them."""
    sent, folder = stored.unpacked(scratch / "stored"), scratch / "template" / "runs"
    folder.mkdir(parents=True)
    for name in (sent.name, GOOD):
        shutil.copytree(sent, folder / name, symlinks=False)
        shutil.rmtree(folder / name / "artifacts" / "export-executorch-int8")  # an extra may lack
        _measured(folder / name)
    (folder / "store" / "artifacts").mkdir(parents=True)
    return folder.parent


def _measured(run: Path) -> None:
    """Add what a benchmark would have left, which the stored run has none of."""
    import surfaces

    (report,) = json.loads(surfaces._result())["reports"]
    folder, model = (
        run / "artifacts" / "benchmark",
        run / "artifacts" / "quantize" / "artifact.json",
    )
    known = json.loads(model.read_text())
    folder.mkdir()
    samples = {
        "schema": 1,
        "devices": [{"device": "host", "samples": {"tflite-int8": [[990, 1000, 1010]]}}],
    }
    (folder / "samples.json").write_text(json.dumps(samples))
    document = {**known, "stage": "benchmark", "section": {}, "facts": {"reports": [report]},
                "parents": {}, "files": {"samples.json": {}}}  # fmt: skip
    (folder / "artifact.json").write_text(json.dumps(document))
    stored.forged(folder, lambda d: None)


def _asked(what: str, ask: Callable[[], object], faults: list[str]) -> bool:
    """Whether a command did what it was asked to."""
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
            ask()
    except EdgeresError as error:
        if not str(error).strip() or len(str(error)) > 20_000:
            faults.append(f"{what}: no sentence")
        return False
    except Exception as error:
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "/edgeres/" in f.filename]
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
        faults.append(f"{what}: {type(error).__name__} at {place}: {str(error)[:120]}")
        return False
    return True


def main() -> int:
    """The command line; 0 if there was no fault."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--slow-every", type=int, default=10, help="Report, verify, bundle.")
    given = parser.parse_args()
    found = fuzz(given.cases, given.seed, given.first, given.slow_every)
    print(json.dumps(found, indent=1))
    return bool(found["faults"])


if __name__ == "__main__":
    sys.exit(main())
