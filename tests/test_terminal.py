"""What people read on a terminal: nobody else's text steers it; no stream is taken for granted."""

from __future__ import annotations

import ast
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import in_process
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeres import terminal
from edgeres.cli import _limits
from edgeres.cli._options import show
from edgeres.errors import BadInput, StorageError
from edgeres.progress import Progress
from edgeres.text import files as text

HOSTILE = "\x1b[2J\x9b31m\r\n\x85\u2028\u2029\u202e\u2066\x07\x7f\udcff"
FORGED = f"x{HOSTILE}signature: good"
ROOT = Path(__file__).parents[1]


def edgeres(
    *arguments: str, before: Callable[[], None] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with its streams as `more` says."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run([sys.executable, "-m", "edgeres", *arguments], text=True, check=False,
                          preexec_fn=before, **(streams | more))  # fmt: skip


def closed(*numbers: int) -> Callable[[], None]:
    return lambda: [os.close(number) for number in numbers] and None


@given(st.text() | st.text(alphabet=HOSTILE + "ab\\"))
def test_whatever_the_text_it_is_one_line_without_controls(words: str) -> None:
    shown = terminal.escaped(words)
    plain = shown.translate(dict.fromkeys(map(ord, terminal._SPACES), " "))
    assert plain.isprintable() and len(shown.splitlines()) <= 1
    assert terminal.escaped(shown) == shown
    assert shown == words or not words.isprintable()


def test_a_result_adds_no_line_by_what_its_texts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    result = {FORGED: [FORGED, {"a": FORGED}], "n": 1, "none": None, "t": (FORGED,)}
    show(result, False, lambda r: "\n".join(f"{k}: {v}" for k, v in r.items()))
    printed = capsys.readouterr().out
    assert printed.count("\n") == 4 and printed.replace("\n", "").isprintable()
    show(result, True, str)
    printed = capsys.readouterr().out
    assert json.loads(printed)[FORGED][0] == FORGED and printed.replace("\n", "").isprintable()


def test_errors_and_progress_add_none_either(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.complain(f"{FORGED}\nsecond")
    progress = Progress()
    progress.started(FORGED, FORGED)
    progress._spoken = -1e9
    progress.tick(1, 2, FORGED)
    progress.finished(FORGED, False, 1.0, FORGED, [FORGED])
    lines = capsys.readouterr().err.split("\n")
    assert all(line.isprintable() for line in lines)
    assert [line[:9] for line in lines[:3]] == ["edgeres: "] * 3 and lines[2] == "edgeres: second"
    assert not any(line.startswith(("signature", "\u2028")) for line in lines)


def test_where_there_is_no_terminal_it_says_how_long_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what was done since the first word, which comes late where work goes on."""
    now = [0.0]
    monkeypatch.setattr("edgeres.progress.time.monotonic", lambda: now[0])
    progress = Progress()
    progress.started("teacher", "")
    for seconds, done in ((0, 500), (20, 510), (40, 900), (60, 999)):
        now[0] = seconds
        progress.tick(done, 1000, "epoch 5/10")
    assert capsys.readouterr().err.splitlines() == [
        "  teacher ...", "  teacher: 51% epoch 5/10, 16 min left",
        "  teacher: 90% epoch 5/10, 10 s left", "  teacher: 100% epoch 5/10, 0 s left",
    ]  # fmt: skip


def test_names_in_a_model_file_reach_no_terminal(tmp_path: Path) -> None:
    name = "x\x1b[2J\nsignature: good\x9b1m\u202e"
    node = onnx.helper.make_node("Relu", ["a"], [name], name=name)
    shape = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node], name, [shape("a", 1, [1, 3, 4, 4])], [shape(name, 1, [1, 3, 4, 4])]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.helper.set_model_props(model, {"signature: good": name, name: "labels\nof\nlines"})
    onnx.save(model, tmp_path / "m.onnx")
    done = edgeres("inspect", str(tmp_path / "m.onnx"))
    said = done.stdout + done.stderr
    assert "relu" in said.lower()
    assert all(line.isprintable() for line in said.split("\n"))
    assert not [line for line in said.split("\n") if line.startswith("signature")]
    document = edgeres("inspect", str(tmp_path / "m.onnx"), "--json")
    assert json.loads(document.stdout)["metadata"][name] == "labels\nof\nlines"


def test_a_bundles_own_words_forge_no_signature() -> None:
    result = {"findings": [FORGED], "golden": None, "signature": "none", "passed": False,
              "bundle": FORGED, "name": FORGED, "for": FORGED, "target": FORGED, "run": FORGED,
              "age_s": 0, "created": "2026", "serial": 1, "signer": None, "notes": [FORGED],
              "edgeres": FORGED}  # fmt: skip
    lines = text.checked_bundle(terminal.cleaned(result)).split("\n")
    assert not [line for line in lines if line.startswith("signature")]
    assert any("UNSIGNED" in line for line in lines)


@pytest.mark.parametrize("arguments", [("list", "devices"), ("--help",), ("--version",)])
def test_a_full_or_closed_stdout_is_said(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        for streams in ({"stdout": full}, {"before": closed(1)}):
            for environment in ({}, {"PYTHONUNBUFFERED": "1"}):
                done = edgeres(*arguments, env={**os.environ, **environment}, **streams)
                assert done.returncode == 2
                assert done.stderr.count("\n") == 1
                assert done.stderr.startswith("edgeres: standard output ")


def test_a_reader_that_leaves_is_no_error() -> None:
    for arguments in (("--help",), ("list", "recipes", "--schema")):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            done = edgeres(*arguments, stdout=pipe)
        assert (done.returncode, done.stderr) == (0, "")


def test_without_stdin_and_stderr_it_works_the_same(tmp_path: Path) -> None:
    usual = edgeres("list", "devices")
    assert usual.returncode == 0
    for numbers in ((0,), (2,), (0, 2)):
        done = edgeres("list", "devices", before=closed(*numbers))
        assert (done.returncode, done.stdout) == (0, usual.stdout)
    done = edgeres("check", "no-such-run", before=closed(0, 2), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    with Path("/dev/full").open("w") as full:
        assert edgeres("check", "no-such-run", stderr=full).returncode == 2
    assert edgeres("init", before=closed(0), cwd=tmp_path).returncode == 0
    # what is opened next doesn't get a standard stream's number
    code = (
        "import os\nfrom edgeres import terminal\nwith terminal.prepared():\n    print(os.pipe())"
    )
    done = subprocess.run([sys.executable, "-c", code], preexec_fn=closed(0, 2), check=False,
                          stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert min(ast.literal_eval(done.stdout)) > 2


def test_ascii_alone_will_do(tmp_path: Path) -> None:
    bare = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = edgeres("run", "größe…\udcff.yaml", env=bare)
    assert done.returncode == 2 and done.stderr.isascii() and "gr\\xf6\\xdfe\\u2026" in done.stderr
    (tmp_path / "größe.yaml").write_text("extends: quickstart\nname: a\n")
    done = edgeres("run", "größe.yaml", "--dry-run", env=bare, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.isascii()


def test_bad_usage_is_escaped_too() -> None:
    done = edgeres("list", "--x\x1b[2J\nsignature: good")
    assert done.returncode == 2
    assert all(line.isprintable() for line in done.stderr.split("\n"))
    assert "\nsignature" not in done.stderr


def test_a_file_size_limit_is_a_sentence(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    with (tmp_path / "out").open("w") as out:
        done = edgeres("list", "recipes", "--schema", stdout=out, before=limited)
    assert done.returncode == 2
    assert done.stderr.startswith("edgeres: standard output can't be written (File too large)")


def test_little_memory_is_a_sentence(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))

    done = edgeres("run", "quickstart", before=limited, cwd=tmp_path)
    assert done.returncode == 2
    assert "edgeres: there is not enough memory" in done.stderr


@pytest.mark.parametrize(
    ("error", "says"),
    [(MemoryError(), "not enough memory"), (OSError(12, "x"), "not enough memory"),
     (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "memory"),
     (RuntimeError("I/O error: File too large (os error 27)"), "ulimit -f"),
     (OSError(28, "No space", "/d/x"), "/d/x: no space left"), (OSError(24, "x"), "ulimit -n")],
)  # fmt: skip
def test_what_the_system_refuses_has_a_sentence(error: Exception, says: str) -> None:
    assert says in (_limits.sentence(error) or "")
    wrapped = ValueError("of a library")
    wrapped.__cause__ = error
    assert _limits.sentence(wrapped) == _limits.sentence(error)
    assert _limits.sentence(ValueError("another")) is None


def test_a_fault_is_told_each_time() -> None:
    class Full(io.StringIO):
        def write(self, words: str) -> int:
            raise OSError(28, "No space left on device")

    stream = terminal._Shown(Full())
    for _ in range(2):
        with pytest.raises(StorageError, match="No space left"):
            stream.write("x\n")
    terminal._Shown(Full(), must=False).write("x\n")


@pytest.mark.parametrize("made_of_it", [AssertionError("empty mode stack"), BadInput("broken")])
def test_ctrl_c_that_a_library_made_another_error_of_is_ctrl_c(
    made_of_it: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def command(standalone_mode: bool) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise made_of_it from None

    monkeypatch.setattr("edgeres.cli.app", command)
    done = in_process.edgeres("run", "r.yaml", cwd=tmp_path)
    assert done.returncode == 130
    assert done.stderr == "\nedgeres: interrupted; the same command continues from here\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_waits_for_an_import_of_pytorch_unless_it_is_pressed_again(
    presses: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """There it would abort the process, or leave half a module behind."""
    (tmp_path / "torch_slow.py").write_text(
        "import os, signal, time\n"
        f"for _ in range({presses}):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        "whole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    seen = []

    def command(standalone_mode: bool) -> None:
        import torch_slow

        seen.append(torch_slow.whole)
        time.sleep(5)
        seen.append("not interrupted")

    monkeypatch.setattr("edgeres.cli.app", command)
    done = in_process.edgeres("run", "r.yaml", cwd=tmp_path)
    sys.modules.pop("torch_slow", None)
    assert done.returncode == 130
    assert seen == ([True] if presses == 1 else [])
    time.sleep(0.3)  # nothing is left that would press again
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# Programs that run elsewhere, or answer another process on stdout.
APART = ("devices/_runner.py", "bundle/golden_test.py", "bundle/samples/",
         "targets/_tensorrt_build.py", "terminal.py")  # fmt: skip
WRITERS = {"print", "echo", "secho", "prompt", "confirm", "Console"}


def test_nothing_else_writes_to_a_terminal() -> None:
    found = []
    for file in sorted((ROOT / "edgeres").rglob("*.py")):
        name = file.relative_to(ROOT / "edgeres").as_posix()
        if name.startswith(APART):
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            last = called.rpartition(".")[2]
            of_stream = called.startswith(("sys.stdout.", "sys.stderr.", "sys.__std"))
            if last in WRITERS or (of_stream and last.startswith("write")):
                found.append(f"{name}:{node.lineno}: {called}")
    assert found == ["progress.py:50: Console"]  # it gets `terminal.raw()`, and escaped text


# Errors, progress, which is quiet by itself, and `clean`, which can't be.
SAYERS = {"__main__.py", "cli/__init__.py", "cli/runs.py", "progress.py"}


def test_what_a_quiet_command_leaves_out_is_a_remark() -> None:
    """`terminal.say` speaks whatever was asked."""
    found = {
        file.relative_to(ROOT / "edgeres").as_posix()
        for file in sorted((ROOT / "edgeres").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) == "terminal.say")
        or (isinstance(node, ast.ImportFrom) and node.module == "edgeres.terminal"
            and "say" in [alias.name for alias in node.names])
    }  # fmt: skip
    assert found == SAYERS


def test_a_space_between_a_number_and_its_unit_is_no_danger() -> None:
    assert terminal.escaped("1.09\u202fMB, 2\u00a0ms") == "1.09\u202fMB, 2\u00a0ms"
    assert terminal.escaped("a\u2028b\u2003c") == "a\\u2028b\\u2003c"
