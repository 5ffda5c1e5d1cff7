"""The command line's contract: exit codes, one sentence an error, 80 columns."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_process import edgeres
from PIL import Image


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def refused(done: subprocess.CompletedProcess[str], code: int, *says: str) -> None:
    """One sentence on stderr, nothing on stdout, the right exit code, no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    last = [line for line in done.stderr.splitlines() if line.startswith("edgeres: ")]
    assert len(last) == 1, done.stderr
    for words in says:
        assert words in done.stderr


def test_inspect_shows_a_program_of_torch_export(tmp_path: Path) -> None:
    """And says of a file of weights who takes it."""
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()  # fmt: skip
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 20, 20),)), tmp_path / "n.pt2")
    found = json.loads(edgeres("inspect", "n.pt2", "--json", cwd=tmp_path).stdout)
    assert found["parameters"] == sum(p.numel() for p in net.parameters())
    assert found["macs"] == 8 * 27 * 18 * 18 + 32 and found["input"]["shape"] == [1, 3, 20, 20]
    assert found["operators"]["batch_norm"] == 1 and found["any_size"]
    assert [layer["macs"] for layer in found["layers"]] == [8 * 27 * 18 * 18, 32]
    shown = edgeres("inspect", "n.pt2", cwd=tmp_path).stdout
    assert "float32 1x3x20x20 NCHW, or another size" in shown and "edgeres quantize n.pt2" in shown
    refused(edgeres("inspect", "n.pt2", "--on", "tflm", cwd=tmp_path), 2, "takes tflite-int8")
    torch.save(net.state_dict(), tmp_path / "n.pth")
    refused(edgeres("inspect", "n.pth", cwd=tmp_path), 2, "holds weights", "quantize and export")
    (tmp_path / "n.pt2").write_bytes((tmp_path / "n.pth").read_bytes())
    refused(edgeres("inspect", "n.pt2", cwd=tmp_path), 2, "holds no program")


@pytest.mark.parametrize(
    "command", ["", "run", "distill", "prune", "search", "quantize", "export", "inspect", "verify",
                "benchmark", "compare", "check", "bundle", "trust", "drift", "promote", "rollback",
                "history", "report", "track", "list", "init", "doctor", "clean", "devices",
                "devices probe", "devices discover", "runs show", "runs note"],
)  # fmt: skip
def test_help_fits_80_columns(command: str, tmp_path: Path) -> None:
    done = edgeres(*command.split(), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "..." not in done.stdout.replace("[ARGS]...", "").replace("]...", "")
    assert not re.search("<[a-z]", done.stdout)  # TEXT, INTEGER, RUN, not <int range>, <str>


def commands() -> Iterator[tuple[str, Any]]:
    """Every command's words, and what typer made of it."""
    from typer.main import get_command

    from edgeres.cli import app

    def below(words: str, group: Any) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from below(f"{words}{name} ", command)
            else:
                yield f"{words}{name}", command

    return below("", get_command(app))


def test_every_command_has_examples_that_it_takes() -> None:
    seen = list(commands())
    assert len(seen) > 25
    for name, command in seen:
        lines = command.epilog.removeprefix("\b\n").replace("\\\n", "").splitlines()[1:]
        assert 1 <= len(lines) <= 3, name
        for line in lines:
            said = shlex.split(line)
            known = ["edgeres", *("benchmark" if name == "bench" else name).split()]
            assert said[: len(known)] == known
            command.make_context(name, said[len(known) :])  # exits or raises if it can't be


def test_a_misspelled_key_names_line_and_nearest(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: bad\ndata: digits\nteachr:\n  model: resnet8\n")
    refused(edgeres("run", "bad.yaml", cwd=tmp_path), 2, "bad.yaml:3", "teachr", "'teacher'")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("run", "nothing.yaml"), 2, "nothing.yaml"),
        (("run", "quickstrat"), 2, "quickstart"),
        (("run", "quickstart", "--until", "exprt"), 2, "export"),
        (("run", "quickstart", "--set", "data=cifar"), 2, "cifar10"),
        (("run", "quickstart", "--set", "data=cifar10:none"), 2, "none"),
        (("run", "quickstart", "--set", "teacher.model=resnet21"), 2, "resnet20"),
        (("distill", "--teacher", "resnet5O"), 2, "resnet50"),
        (("export", "--target", "tflite-int9"), 2, "tflite-int8"),
        (("export", "--target", "tflite-int8,onnx-int9"), 2, "unknown target 'onnx-int9'"),
        (("export", "--target", ","), 2, "names nothing"),
        (("export",), 2, "no runs yet"),
        (("verify", "no-such-run"), 2, "no-such-run"),
        (("inspect", "none.tflite"), 2, "no such file"),
        (("prune", "--budget", "macs=half"), 2, "macs=0.5"),
        (("list", "modles"), 2, "models"),
        (("benchmark", "--preset", "fast"), 2, "fast"),
    ],
)
def test_bad_usage_is_one_sentence(
    arguments: tuple[str, ...], code: int, says: str, tmp_path: Path
) -> None:
    refused(edgeres(*arguments, cwd=tmp_path), code, says)


def test_unknown_options_are_bad_usage(tmp_path: Path) -> None:
    done = edgeres("run", "--nonsense", cwd=tmp_path)
    assert done.returncode == 2
    assert "No such option" in done.stderr


def folder_of_images(root: Path, sizes: dict[str, int], mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    for split, count in sizes.items():
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
                image = Image.fromarray(pixels).convert(mode)
                suffix = "jpg" if mode in ("RGB", "L", "CMYK") else "png"
                image.save(root / split / label / f"{i}.{suffix}")
    return root


CHECKPOINT = ("--set", "teacher.model=resnet8", "--set", "data.size=16", "--until", "teacher")


def test_empty_data_and_a_broken_image(tmp_path: Path) -> None:
    (tmp_path / "empty" / "train").mkdir(parents=True)
    source = f"data=imagefolder:{tmp_path / 'empty'}"
    refused(edgeres("run", "quickstart", "--set", source, *CHECKPOINT, cwd=tmp_path), 2, "empty")
    folder = folder_of_images(tmp_path / "images", {"train": 12, "test": 4})
    broken = folder / "train" / "cat" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    source = f"data=imagefolder:{folder}"
    refused(edgeres("run", "quickstart", "--set", source, *CHECKPOINT, cwd=tmp_path), 2, "3.jpg")


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P"])
def test_images_that_are_not_rgb_are_converted(mode: str, tmp_path: Path) -> None:
    folder = folder_of_images(tmp_path / "images", {"train": 10, "test": 4}, mode)
    done = edgeres("run", "quickstart", "--set", f"data=imagefolder:{folder}", "--set",
                   "data.calibration=4", "--set", "data.size=16", "--until", "data", "--json",
                   cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)["artifacts"]["data"]["facts"]
    assert facts["counts"]["test"] == 8


def test_corrupt_checkpoint_and_wrong_number_of_classes(tmp_path: Path) -> None:
    from edgeres.models import resnet, spec

    (tmp_path / "bad.pth").write_bytes(b"not a checkpoint")
    refused(edgeres("run", "quickstart", "--set", "teacher.checkpoint=bad.pth", *CHECKPOINT,
                    cwd=tmp_path), 2, "bad.pth")  # fmt: skip
    model = resnet.build(spec.parse("resnet8", 100, spec.default_preprocess(16)))
    torch.save(model.state_dict(), tmp_path / "hundred.pth")
    refused(edgeres("run", "quickstart", "--set", "teacher.checkpoint=hundred.pth", *CHECKPOINT,
                    "--set", "teacher.train.epochs=0", cwd=tmp_path), 2, "100 classes")  # fmt: skip
    refused(edgeres("run", "quickstart", "--set", "teacher.checkpoint=gone.pth", *CHECKPOINT,
                    cwd=tmp_path), 2, "gone.pth", "no such file")  # fmt: skip


def test_distill_with_a_teachers_checkpoint(tmp_path: Path) -> None:
    from edgeres.models import resnet, spec

    model = resnet.build(spec.parse("resnet8", 10, spec.default_preprocess(16)))
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}},
               tmp_path / "net.th")  # fmt: skip
    done = edgeres("distill", "--teacher", "resnet8", "--checkpoint", "net.th", "--student",
                   "resnet8-w0.5", "--epochs", "1", "--lr", "0.05", "--batch-size", "128",
                   "--device", "cpu", "--set", "teacher.near_chance=go on", "--json",
                   cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)["artifacts"]
    assert made["teacher"]["facts"]["source"] == "checkpoint"
    assert "are assumed" in made["teacher"]["facts"]["notes"][0]
    (note,) = made["teacher"]["facts"]["notes"]
    assert f"\n    note: {note}\n" in done.stderr
    assert made["distill"]["facts"]["epochs"] == 1


def test_runs_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    refused(edgeres("run", "quickstart", "--until", "data", cwd=tmp_path), 2, "runs")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs with options; skips where the machine doesn't let us."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if (
            os.geteuid() != 0
            or subprocess.run(command, capture_output=True, check=False).returncode
        ):
            pytest.skip("mounting a tmpfs needs root and a machine that allows it")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_a_read_only_folder(tmp_path: Path, mounted: Callable[[str], Path]) -> None:
    runs = mounted("ro") / "runs"
    refused(edgeres("run", "quickstart", "--until", "data", "--runs", runs, cwd=tmp_path), 2,
            "read-only or no permission", "choose another folder")  # fmt: skip


def test_a_full_disk(tmp_path: Path, mounted: Callable[[str], Path]) -> None:
    runs = mounted("size=400k") / "runs"
    refused(edgeres("run", "quickstart", "--until", "data", "--runs", runs, cwd=tmp_path), 2,
            "no space left", "edgeres clean")  # fmt: skip
    assert list((runs / "store" / "tmp").iterdir()) == []


def test_init_writes_a_recipe_that_plans(tmp_path: Path) -> None:
    assert edgeres("init", cwd=tmp_path).returncode == 0
    done = edgeres("run", "recipe.yaml", "--dry-run", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["run"].startswith("recipe-")
    refused(edgeres("init", cwd=tmp_path), 2, "exists already")


def test_a_device_says_what_it_is_and_what_it_lacks(tmp_path: Path) -> None:
    done = edgeres("devices", "probe", "host", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["device"] == "host"
    assert found["missing"] == []
    assert found["state"]["runtimes"]["onnxruntime"]
    bare = tmp_path / "bare.yaml"
    bare.write_text(
        "name: bare\nkind: local\ndescription: a Python without runtimes\n"
        f"settings: {{python: {_bare_python(tmp_path)}}}\n"
    )
    probe = ("devices", "probe", str(bare), "--json", "--allow-device-programs")
    found = json.loads(edgeres(*probe, cwd=tmp_path).stdout)
    assert [m.split(":")[0] for m in found["missing"]] == [
        "no runtime for .tflite files", "no runtime for .onnx files",
    ]  # fmt: skip
    assert "-m pip install ai-edge-litert" in found["missing"][0]


def _bare_python(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "bare"], check=True)
    return folder / "bare" / "bin" / "python"


def test_sustained_and_elsewhere_are_refused_where_they_make_no_sense(tmp_path: Path) -> None:
    done = edgeres("devices", "probe", "host@elsewhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "has no other place" in done.stderr
