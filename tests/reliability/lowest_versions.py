"""Do the lowest versions that pyproject.toml declares really work? Install them, and run the chain.

    python tests/reliability/lowest_versions.py --folder /tmp/lowest
    python tests/reliability/lowest_versions.py --folder /tmp/lowest --cpu --find-links /opt/wheels

Needs `uv` beside this Python, and a package index. What is declared is installed in its lowest
version, what that brings along in its newest (uv's `lowest-direct`). `--cpu` leaves out CUDA's
libraries, two gigabytes that only a GPU needs; a CPU build of torch has to be found then.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("coreml", "signing", "android")
RECIPE = """
name: lowest
data: {source: digits, size: 8, calibration: 32}
train: {epochs: 1, batch_size: 64}
teacher: {model: resnet8}
distill: {student: resnet8-w0.5}
prune: {macs: 0.9, max_drop: null}
quantize: {method: qat}
export: {targets: [onnx-int8, tflite-int8, coreml-int8]}
verify: {agreement: 0, worst_codes: 255, mean_codes: 255, layer_codes: 255}
benchmark: {preset: quick}
report: {}
"""
_OF_CUDA = ("nvidia-", "cuda-", "triton==")


def lowest(uv: str, cpu: bool) -> list[str]:
    """`name==version` of everything."""
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    command = [uv, "pip", "compile", "--quiet", str(ROOT / "pyproject.toml"), *extras,
               "--resolution", "lowest-direct", "--python-version", version(), "--no-header",
               "--no-annotate"]  # fmt: skip
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    pins = [line for line in said.splitlines() if "==" in line]
    return [pin for pin in pins if not (cpu and pin.startswith(_OF_CUDA))]


def version() -> str:
    """This Python's, which the environment gets too."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def main() -> int:
    """The command line; 0 if the chain completes and its bundle's golden test passes."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--folder", type=Path, required=True, help="For the environment and the run."
    )
    parser.add_argument("--cpu", action="store_true", help="Without CUDA's libraries.")
    parser.add_argument("--find-links", help="Where more wheels lie.")
    given = parser.parse_args()
    folder, uv = given.folder.resolve(), str(Path(sys.executable).with_name("uv"))
    folder.mkdir(parents=True, exist_ok=True)
    pins, python = folder / "lowest.txt", str(folder / "venv/bin/python")
    pins.write_text("\n".join(lowest(uv, given.cpu)) + "\n")
    venv = [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable]
    links = ["--find-links", given.find_links] if given.find_links else []
    (folder / "recipe.yaml").write_text(RECIPE)
    work = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command in (
        [*venv, str(folder / "venv")],
        [uv, "pip", "install", "--quiet", "--python", python, *links, "--no-deps", "-r", str(pins)],
        [python, "-m", "edgeres", "run", "recipe.yaml"],
        [python, "-m", "edgeres", "bundle", "--for", "web-service", "--out", "bundle.zip"],
        [python, "-m", "edgeres", "verify", "bundle.zip"],
    ):  # fmt: skip
        done = subprocess.run(command, cwd=folder, env=work, check=False)
        if done.returncode:
            print(f"failed: {' '.join(command)}", file=sys.stderr)
            return 1
    print("the lowest versions work: " + ", ".join(_declared(pins)))
    return 0


def _declared(pins: Path) -> list[str]:
    """Of all pins those that pyproject.toml names."""
    asked = (ROOT / "pyproject.toml").read_text()
    return [pin for pin in pins.read_text().splitlines() if f'"{pin.split("==")[0]}>=' in asked]


if __name__ == "__main__":
    sys.exit(main())
