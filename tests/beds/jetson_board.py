"""A Jetson without the hardware: stand-ins of NVIDIA's programs on the PATH of a board.

The stand-ins (`jetson/`) keep what they set in a folder `state` beside them, so that a test sees
what a board would be left in. Here the board is this machine; the programs can as well be copied
into the root of one that ssh reaches (`install`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeres.devices import DeviceProfile, _jetson
from edgeres.devices._jetson import Jetson
from edgeres.devices.local import LocalDevice

PROGRAMS = Path(__file__).with_name("jetson")
MODES = "0 15W\n1 7W\n2 MAXN_SUPER\n"
ORIN_NANO = (
    "11-21-2026 12:00:00 RAM 4722/7844MB (lfb 1x512kB) SWAP 149/1024MB (cached 7MB) "
    "CPU [23%@2201,off,27%@2201] EMC_FREQ 2%@1866 GR3D_FREQ 10%@[1300] NVENC 716 APE 150 "
    "cpu@52.9C gpu@51.1C cv0@-256C VDD_IN {vdd_in}/5000 VDD_CPU_GPU_CV 1000/1000 VDD_SOC 1500/1500"
)
RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
MODEL = "NVIDIA Jetson Orin Nano Developer Kit\0"


class LocalJetson(Jetson, LocalDevice):
    """This machine as a Jetson. Its guard restores when its stdin ends, as ssh's does."""

    @contextlib.contextmanager
    def held(self, restore: Sequence[Sequence[str]]) -> Iterator[None]:
        lines = "".join(f"{shlex.join(argv)} >/dev/null 2>&1\n" for argv in restore)
        guard = subprocess.Popen(["sh", "-c", f"cat >/dev/null\n{lines}"], stdin=subprocess.PIPE,
                                 start_new_session=True)  # fmt: skip
        try:
            yield
        finally:
            guard.communicate(timeout=20)


@dataclass(frozen=True)
class JetsonBoard:
    """The programs and what they keep."""

    programs: Path

    @property
    def state(self) -> Path:
        return self.programs / "state"

    def set(self, **files: str) -> None:
        """Write files of the state, e.g. tensorrt="11.1.0"."""
        for name, text in files.items():
            (self.state / name).write_text(text)

    def get(self, name: str) -> str:
        return (self.state / name).read_text().strip()

    def calls(self, program: str) -> list[str]:
        """The command lines of one program so far."""
        log = self.state / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if line.split()[0] == program]

    def profile(self, **settings: Any) -> DeviceProfile:
        return DeviceProfile("orin", "jetson", "", accelerator="gpu",
                             runners=("trtexec", "python"), settings=settings,
                             tools={"trtexec": str(self.programs / "trtexec")})  # fmt: skip

    def open(self, **settings: Any) -> LocalJetson:
        profile = _jetson.with_text_mode(self.profile(**settings))
        return LocalJetson(profile, **profile.settings)


def install(folder: Path, python: str = sys.executable) -> JetsonBoard:
    """Copy the stand-ins into a folder that is or will be on a board's PATH."""
    shutil.copytree(PROGRAMS, folder, dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    board = JetsonBoard(folder)
    board.state.mkdir()
    readings = "\n".join(ORIN_NANO.format(vdd_in=mw) for mw in (4000, 5000, 9000))
    board.set(modes=MODES, mode="0", clocks="mode-0", tegrastats=f"{readings}\n",
              tensorrt="10.3.0", python=python)  # fmt: skip
    return board


@pytest.fixture
def jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JetsonBoard:
    """This machine with the programs of a Jetson."""
    board = install(tmp_path / "board")
    (board.state / "model").write_text(MODEL)
    (board.state / "nv_tegra_release").write_text(RELEASE)
    monkeypatch.setattr(_jetson, "_MODEL", str(board.state / "model"))
    monkeypatch.setattr(_jetson, "_RELEASE", str(board.state / "nv_tegra_release"))
    monkeypatch.setenv("PATH", f"{board.programs}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return board
