"""init at a terminal and with options; names complete; colours can be switched off."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgeres import recipe
from edgeres.commands import complete, start
from edgeres.errors import BadInput


def at_a_terminal(folder: Path, typed: list[str]) -> str:
    """`edgeres init` in a pseudo-terminal; each line is typed when a question waits."""
    main, side = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "edgeres", "init"], cwd=folder, stdin=side,
                          stdout=side, stderr=side, close_fds=True) as process:  # fmt: skip
        os.close(side)
        shown, end = "", time.monotonic() + 120
        while time.monotonic() < end:
            ready, _, _ = select.select([main], [], [], 0.5)
            if not ready:
                continue
            try:
                block = os.read(main, 4096).decode()
            except OSError:  # the other side is closed
                break
            shown += block
            if typed and shown.rstrip(" ").endswith("]:"):
                os.write(main, f"{typed.pop(0)}\n".encode())
                shown += "\n"
        process.wait(timeout=60)
    os.close(main)
    assert process.returncode == 0, shown
    return shown


def test_at_a_terminal_it_asks_and_asks_again(tmp_path: Path) -> None:
    typed = ["", "7", "24", "resnet9000x", "resnet32", "resnet8-w0.5", "tflite-int8", ""]
    shown = at_a_terminal(tmp_path, typed)
    assert "resnet9000x" in shown and "run it: edgeres run recipe.yaml" in shown
    written = recipe.load(tmp_path / "recipe.yaml")
    assert (written.teacher.model, written.export.targets) == ("resnet32", ("tflite-int8",))  # type: ignore[union-attr]
    assert written.distill is not None and written.distill.student == "resnet8-w0.5"
    assert (written.data.source, written.data.size) == ("digits", 24)


@pytest.mark.parametrize(
    ("said", "size"),
    [({}, 16), ({"data": "imagefolder:photos"}, 96), ({"data": "cifar10:x"}, 32),
     ({"data": "imagefolder:photos", "size_px": 128}, 128), ({"size_px": 24}, 24)],
)  # fmt: skip
def test_the_size_is_the_data_sets_own_and_stands_in_the_recipe(
    said: dict[str, Any], size: int, tmp_path: Path
) -> None:
    start.initialized(tmp_path / "a.yaml", "quickstart", start.Answers(**said))
    assert recipe.load(tmp_path / "a.yaml").data.size == size
    assert f"size: {size}" in (tmp_path / "a.yaml").read_text()


def test_options_answer_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    answers = start.Answers(student="resnet8", targets=("onnx-int8",), devices=("pixel-8",))
    assert "--dry-run" in start.initialized(tmp_path / "my first.yaml", "quickstart", answers)
    written = recipe.load(tmp_path / "my first.yaml")
    assert written.name == "my-first"
    assert written.benchmark is not None and written.benchmark.devices == ("pixel-8",)
    assert (tmp_path / "my first.yaml").read_text().count("# ") >= 5
    for wrong, says in ((start.Answers(targets=("tflite-int7",)), "tflite-int"),
                        (start.Answers(teacher="checkpoint:none.pth"), "none.pth"),
                        (start.Answers(student="checkpoint:none.pth"), "resnet"),
                        (start.Answers(devices=("pixel-80",)), "pixel-8"),
                        (start.Answers(data="digitz"), "digits")):  # fmt: skip
        with pytest.raises(BadInput, match=says):
            start.initialized(tmp_path / "b.yaml", "quickstart", wrong)
    assert not (tmp_path / "b.yaml").exists()


@pytest.mark.parametrize(
    ("chosen", "limited"),
    [(("onnx-fp32", "onnx-int8"), "onnx-int8"), (("tflite-fp32",), "tflite-fp32"),
     (("coreml-int8",), None), ((), "tflite-int8")],
)  # fmt: skip
def test_a_recipe_of_ones_own_has_limits_that_it_can_keep(
    chosen: tuple[str, ...], limited: str | None, tmp_path: Path
) -> None:
    """Not those of the quickstart's small file, which another network or target would miss."""
    start.initialized(tmp_path / "own.yaml", "quickstart", start.Answers(targets=chosen))
    found = recipe.load(tmp_path / "own.yaml").budgets
    assert (found and [(x.target, x.size_kb) for x in found.limits]) == (
        limited and [(limited, None)]
    )


def test_names_complete() -> None:
    assert complete.recipes("quick") == ["quickstart"]
    assert "tflite-int8" in complete.targets("tflite-") and "onnx-int8" not in complete.targets("t")
    assert complete.devices("pix") == ["pixel-8"]
    assert "cifar10" in complete.datasets("ci") and "resnet20" in complete.models("resnet2")
    assert complete.lists("d") == ["datasets", "devices"] and complete.bundles("an") == ["android"]


def test_the_shell_gets_completions() -> None:
    line = {
        "_EDGERES_COMPLETE": "complete_bash",
        "COMP_WORDS": "edgeres run qui",
        "COMP_CWORD": "2",
    }
    code = "import sys; sys.argv[0] = 'edgeres'; from edgeres.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **line},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.stdout.split() == ["quickstart"], done.stderr


@pytest.mark.parametrize("command", ["--help", "run --help", "list targets", "no-such-command"])
def test_no_color_means_no_escapes_even_at_a_terminal(command: str) -> None:
    main, side = pty.openpty()
    env = {**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "-m", "edgeres", *command.split()],
        stdin=side, stdout=side, stderr=side, close_fds=True, env=env,
    ):  # fmt: skip
        os.close(side)
        seen = b""
        while True:
            try:
                block = os.read(main, 65536)
            except OSError:
                break
            if not block:
                break
            seen += block
    os.close(main)
    assert seen
    assert b"\x1b[" not in seen
