"""A new model on one board of three, which drifts, and back: promote, bundle, drift, rollback.

    .venv/bin/python benchmarks/canary.py STABLE_RUN NEW_RUN [--runs runs] [--folder boards]

Each board is a folder, as an update would fill it: the bundle for Linux, unpacked, whose golden
test has to pass there, and an app that classifies the test split's pictures with the bundle's own
sample and logs what docs/bundles.md says. No root, no network. The new release's app has a fault
that no gate of a file can find: it brightens what the camera gives. So the board that gets it logs
other pixels than the test set's, `edgeres drift` says so, and the canary is rolled back.

The channels of --runs are moved for real; they end where they began: at STABLE_RUN.
"""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from edgeres import runs, stages

BOARDS = ("board-1", "board-2", "board-3")
BRIGHTER = 26  # a tenth of the pixels' range
APP = """
import json, os, sys
import numpy as np
from PIL import Image
sys.path.insert(0, "bundle/sample")
import classify

said, model = classify.contract(), None
with open("bundle/golden/golden.json") as file:
    model = classify.interpreter(os.path.join("bundle", json.load(file)["model"]))
for pixels in np.load("pictures.npy"):
    pixels = np.clip(pixels.astype(int) + int(sys.argv[1]), 0, 255).astype(np.uint8)
    shares = classify.probabilities(model, classify.prepared(Image.fromarray(pixels), said))
    x = pixels / 255
    print(json.dumps({"top1": int(shares.argmax()), "confidence": float(shares.max()),
                      "mean": x.mean(), "std": x.std(),
                      "saturated": float(((x == 0) | (x == 1)).mean())}))
"""


def edgeres(*argv: str, place: Path, expected: int = 0) -> None:
    """Run a command as a person would, and show it."""
    print(f"$ edgeres {shlex.join(argv)}")
    done = subprocess.run([sys.executable, "-m", "edgeres", *argv], check=False, cwd=place,
                          capture_output=True, text=True)  # fmt: skip
    print(done.stdout.rstrip() or done.stderr.rstrip())
    if done.returncode != expected:
        raise SystemExit(f"exit code {done.returncode} in place of {expected}: {done.stderr}")
    if expected:
        print(f"(exit code {expected})")


def update(board: Path, bundle: str) -> None:
    """Put a bundle on a board: beside the old one, then in its place if its golden test passes."""
    fresh = board / "fresh"
    shutil.unpack_archive(board.parent / bundle, fresh)
    done = subprocess.run([sys.executable, "golden_test.py"], cwd=fresh, check=False,
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{board.name}: {done.stdout}")
    shutil.rmtree(board / "bundle", ignore_errors=True)
    fresh.rename(board / "bundle")
    print(f"{board.name}: {bundle}: golden test {done.stdout.split()[-1]}")


def use(board: Path, brighter: int) -> str:
    """Let a board classify its pictures; where it logged them."""
    log = board / "log.jsonl"
    with log.open("w") as file:
        subprocess.run([sys.executable, "-c", APP, str(brighter)], cwd=board, stdout=file,
                       stderr=subprocess.DEVNULL, check=True)  # fmt: skip
    return f"{board.name}/{log.name}"


def play(stable: str, new: str, folder: Path, place: Path) -> None:
    """The whole story, in `place`, with a folder for each board."""
    os.environ["EDGERES_RUNS"] = str(folder.absolute())
    say = functools.partial(edgeres, place=place)
    module = stages.load("benchmark")
    images, _ = module.test_images(runs.find_run(stable, folder).artifacts["data"])
    shares = np.array_split(images.permute(0, 2, 3, 1).numpy(), len(BOARDS))
    boards = [place / name for name in BOARDS]
    for board, pictures in zip(boards, shares, strict=True):
        board.mkdir()
        np.save(board / "pictures.npy", pictures)
    first = boards[0]

    print("# The release that is out there, on every board")
    for channel in ("stable", "canary"):
        say("promote", stable, "--to", channel)
    say("bundle", "@stable", "--for", "linux", "--out", "stable.zip")
    for board in boards:
        update(board, "stable.zip")
    print("\n# A new one, on one board")
    say("promote", new, "--to", "canary")
    say("bundle", "@canary", "--for", "linux", "--out", "canary.zip")
    update(first, "canary.zip")
    print("\n# What they see; the new app brightens its pictures")
    say("drift", "canary.zip", use(first, BRIGHTER), expected=1)
    for board in boards[1:]:
        say("drift", "stable.zip", use(board, 0))
    print("\n# Back")
    say("rollback", "--channel", "canary", "--reason", f"drift on {first.name}")
    say("bundle", "@canary", "--for", "linux", "--out", "back.zip")
    update(first, "back.zip")
    say("drift", "back.zip", use(first, 0))
    say("history")


def main() -> None:
    """Play it in a folder of its own, or in --folder, which stays."""
    parser = argparse.ArgumentParser(description="a canary that drifts")
    parser.add_argument("stable")
    parser.add_argument("new")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = given.folder or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        play(given.stable, given.new, given.runs, place)


if __name__ == "__main__":
    main()
