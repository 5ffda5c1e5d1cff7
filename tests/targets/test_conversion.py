"""A converter works in a process of its own: its crash, its chatter and its life are contained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeres import targets
from edgeres.disk import file_sha256
from edgeres.errors import BadInput
from edgeres.models import weights
from edgeres.quiet import ConversionFailed
from edgeres.targets import _conversion
from edgeres.targets._conversion import convert, examine

# Runs in the child before anything else: importing onnx does what the test wants.
SITE = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "onnx":
            open({marker!r}, "w").write(str(__import__("os").getpid()))
            {action}
sys.meta_path.insert(0, Finder())
"""


@pytest.fixture
def checkpoint(quantized: tuple, tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    weights.save(folder, quantized[1])
    return folder


def misbehaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str) -> Path:
    """Make every later child do something when it imports onnx; the file that says it began."""
    marker, site = tmp_path / "began", tmp_path / "site"
    site.mkdir()
    text = SITE.format(marker=str(marker), action=action)
    (site / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{Path(__file__).parents[2]}")
    return marker


def test_the_same_file_as_in_process_and_a_silent_terminal(
    checkpoint: Path, quantized: tuple, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    _, folded, scales = quantized
    path, here = tmp_path / "a.onnx", tmp_path / "b.onnx"
    found = convert(checkpoint, scales, "onnx-int8", path, {"edgeres.origin": "x"}, lambda: None)
    module, precision = targets.load("onnx-int8")
    module.export(targets.Source(folded, scales, {"edgeres.origin": "x"}), precision, here)
    assert file_sha256(path) == file_sha256(here)
    assert found["graph"]["float_operators"] == []
    assert found["input"]["dtype"] == "uint8"
    assert capfd.readouterr() == ("", "")


def test_a_crash_is_an_error_with_its_last_words(
    checkpoint: Path, quantized: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = "print('the arena is too small', flush=True); __import__('os').abort()"
    misbehaving(tmp_path, monkeypatch, action)
    with pytest.raises(ConversionFailed) as caught:
        convert(checkpoint, quantized[2], "onnx-int8", tmp_path / "a.onnx", {}, lambda: None)
    assert "crashed (SIGABRT); its last words: the arena is too small" in str(caught.value)
    assert "a.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hang_is_an_error_with_its_last_words(
    checkpoint: Path, quantized: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = "print('pass 7 of 9', flush=True); __import__('time').sleep(600)"
    marker = misbehaving(tmp_path, monkeypatch, action)
    monkeypatch.setattr(_conversion, "_LIMIT_S", 0.5)

    def waiting() -> None:  # starting takes its time
        while not (marker.exists() and marker.read_text()):
            time.sleep(0.05)
        time.sleep(0.5)

    with pytest.raises(ConversionFailed, match=r"hung, and was stopped after 0\.5 s; its last.*7"):
        convert(checkpoint, quantized[2], "onnx-int8", tmp_path / "a.onnx", {}, waiting)
    assert gone(int(marker.read_text()))


@pytest.mark.parametrize(
    ("action", "says"),
    [("__import__('os').kill(__import__('os').getpid(), 11)", r"crashed \(SIGSEGV\)"),
     ("bytearray(3 << 30)", "MemoryError"),
     ("raise RuntimeError('7 of 9')", "failed: 7 of 9")],
)  # fmt: skip
def test_a_file_that_its_reader_dies_of_is_bad_input(
    action: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "worse.onnx"
    file.write_bytes(b"x")
    misbehaving(tmp_path, monkeypatch, action)
    with pytest.raises(BadInput, match=f"worse.onnx.*{says}"):
        examine(file)


def test_an_error_keeps_its_kind(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"spec\.json: no such file"):
        convert(tmp_path, None, "onnx-fp32", tmp_path / "a.onnx", {}, lambda: None)


def test_giving_up_ends_the_child(
    checkpoint: Path, quantized: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = misbehaving(tmp_path, monkeypatch, "__import__('time').sleep(600)")

    def waiting() -> None:
        if marker.exists() and marker.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, quantized[2], "onnx-int8", tmp_path / "a.onnx", {}, waiting)
    assert gone(int(marker.read_text()))


def test_a_killed_parent_takes_the_child_along(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = misbehaving(tmp_path, monkeypatch, "__import__('time').sleep(600)")
    call = (
        "import sys; from pathlib import Path; from edgeres.targets._conversion import convert\n"
        "convert(Path(sys.argv[1]), None, 'onnx-fp32', Path(sys.argv[2]), {}, lambda: None)"
    )
    parent = subprocess.Popen([sys.executable, "-c", call, checkpoint, tmp_path / "a.onnx"])
    deadline = time.monotonic() + 60
    while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(marker.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert gone(child)


def gone(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_what_a_converter_leaves_goes_with_it(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Core ML's converter, for one, makes a package in the temporary folder each time."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    leave = "import tempfile; open({0!r}, 'w').write(tempfile.mkdtemp(suffix='.mlpackage'))"
    marker = misbehaving(tmp_path, monkeypatch, leave.format(str(tmp_path / "left")))
    convert(checkpoint, None, "onnx-fp32", tmp_path / "m.onnx", {}, lambda: None)
    assert marker.exists()
    left = Path((tmp_path / "left").read_text())
    assert left.is_relative_to(place) and not left.exists() and not list(place.iterdir())


def test_a_pipe_in_a_models_place_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    package = tmp_path / "m.mlpackage"
    package.mkdir()
    os.mkfifo(package / "Manifest.json")
    for path in (tmp_path / "m.onnx", package):
        with pytest.raises(BadInput, match="is a pipe, a socket or a device"):
            examine(path)


def test_the_job_is_plain_json(tmp_path: Path) -> None:
    """No pickle crosses the pipe: garbage on it ends the child, nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "edgeres.targets._conversion", tmp_path / "reply.json"],
        input=b"\x80\x04cos\nsystem\n", capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert b"JSONDecodeError" in done.stderr or b"UnicodeDecodeError" in done.stderr
    assert not (tmp_path / "reply.json").exists()
