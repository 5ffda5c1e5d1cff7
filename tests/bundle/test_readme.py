"""The README of a bundle says what the run's facts say, and its commands do what it says."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beds.bundles import artifact, edited, forged, key_pair, make, zipped

from edgeres import bundle
from edgeres.artifact import Artifact
from edgeres.bundle import checking, readme, signing
from edgeres.commands import bundle as command
from edgeres.errors import BadInput

Run = dict[str, Artifact]
pytestmark = pytest.mark.usefixtures("own_config")
SAMPLES = Path(bundle.__file__).parent / "samples"


def page(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.read("README.md").decode()


def commands(text: str) -> list[str]:
    """The lines of its shell blocks."""
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.S)
            for line in block.splitlines()]  # fmt: skip


def benchmark(**changes: Any) -> Artifact:
    report: dict[str, Any] = {
        "target": "onnx-int8", "device": "board|<b>", "threads": 2, "valid": False,
        "emulated": False, "reasons": ["it was <hot>"], "measured_at": "2026-11-27T03:19:45+00:00",
        "latency": {"median_ns": 1_500_000, "median_ci_ns": [1_400_000, 1_600_000], "n": 777,
                    "p90_ns": 2_000_000},
        "memory": {"peak_rss_bytes": 5_500_000, "baseline_rss_bytes": 4_000_000},
        "state_before": {"cpu_model": "a processor"},
        "runtime": {"name": "onnxruntime", "version": "1.2"},
    }  # fmt: skip
    return artifact("benchmark", Path(), {"reports": [{**report, **changes}]})


@pytest.mark.parametrize("kind", bundle.KINDS)
def test_every_kind_says_how_it_is_used_and_has_what_it_names(kind: str) -> None:
    use = (SAMPLES / kind / "USE.md").read_text("utf-8")
    assert "<" not in use and use.isascii()
    assert "golden_test.py" in use
    for name in re.findall(r"`?sample/([\w.]+)", use):
        assert (SAMPLES / kind / name).exists(), name


def test_it_says_what_was_measured_and_how(
    exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path
) -> None:
    run = {**exported_run, "benchmark": benchmark()}
    text = page(make(run, "web-service", golden_pictures, tmp_path / "b.zip"))
    row = next(r for r in run["verify"].facts["files"] if r["target"] == "onnx-int8")
    sha256 = run["export:onnx-int8"].facts["exported"]["sha256"]
    assert f"onnx-int8, {row['file']['size_bytes'] / 1e3:.1f} kB, sha256 {sha256}" in text
    assert "- made: 2001-09-09T01:46:40Z of the run a-run" in text and "serial 7 " in text
    right, n = row["test"]["correct"], row["test"]["n"]
    assert f"top-1 accuracy: {right / n:.2%} (" in text and f"n = {n}, test images of data" in text
    assert "median 1.500 ms (1.400 to 1.600, 95 % interval), p90 2.000 ms, batch 1, n = 777" in text
    assert "a processor, threads\\: 2, onnxruntime 1.2, 2026-11-27" in text
    assert "5.5 MB at most in the whole process, 4.0 MB of it without the model" in text
    assert "NOT A VALID MEASUREMENT: it was &lt;hot&gt;" in text
    assert "board\\|&lt;b&gt;" in text and "<" not in text
    assert "Nobody signed it" in text
    emulated = {**exported_run, "benchmark": benchmark(emulated=True)}
    for others in (exported_run, emulated):
        text = page(make(others, "web-service", golden_pictures, tmp_path / "b.zip"))
        assert "- latency: not measured\n- memory: not measured\n" in text


def test_its_contract_is_in_numbers(stored_run: Path, tmp_path: Path) -> None:
    command.bundled(str(stored_run), "android", tmp_path / "b.zip", None, stored_run.parent)
    text = page(tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        contract = json.loads(archive.read("preprocess.json"))
    assert re.sub(r"\\", "", text).count(f"{contract['mean']}, {contract['std']} of pixel") == 1
    assert f"{contract['size_px']} x {contract['size_px']} px" in text


def test_who_signed_and_how_that_is_checked(
    exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path
) -> None:
    key, public = key_pair(tmp_path, "key")
    text = page(make(exported_run, "jetson", golden_pictures, tmp_path / "b.zip", key))
    assert signing.fingerprint(signing.public_key(public)) in text
    shutil.unpack_archive(tmp_path / "b.zip", tmp_path / "b")
    shutil.copy(public, tmp_path / "b" / "key.pub")
    verify, openssl, jetson = commands(text)
    assert jetson == "python3 sample/jetson.py"
    if shutil.which("openssl"):
        argv = openssl.split()
        subprocess.run(argv, cwd=tmp_path / "b", check=True, capture_output=True)
        with (tmp_path / "b" / "manifest.json").open("a") as manifest:
            manifest.write(" ")
        assert subprocess.run(argv, cwd=tmp_path / "b", check=False, capture_output=True).returncode
    shutil.rmtree(tmp_path / "b")
    shutil.unpack_archive(tmp_path / "b.zip", tmp_path / "b")
    argv = verify.partition("#")[0].split()[1:]
    argv[-1] = str(public)
    done = subprocess.run([sys.executable, "-m", "edgeres", *argv], cwd=tmp_path / "b", check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_readme_about_something_else_is_found(
    good_bundle: dict[str, bytes], tmp_path: Path
) -> None:
    text = good_bundle["README.md"]
    for changed, says in ((text + b"<script>", "holds HTML"),
                          (text.replace(b"sha256 ", b"sha256 0"), None),
                          (b"# nothing", "is about another file")):  # fmt: skip
        zipped(forged(good_bundle, "README.md", changed), tmp_path / "b.zip")
        findings = checking.check(tmp_path / "b.zip")["findings"]
        assert findings == ([f"README.md {says}"] if says else [])
    old = edited(good_bundle, "golden/golden.json", lambda _: None)
    manifest = {**json.loads(old["manifest.json"]), "schema": 2}
    zipped({**old, "manifest.json": json.dumps(manifest).encode()}, tmp_path / "b.zip")
    with pytest.raises(BadInput, match="schema 2 is another edgeres version's; make the bundle"):
        checking.check(tmp_path / "b.zip")


@pytest.mark.parametrize("broken", [{"latency": None}, {"latency": {"median_ci_ns": 5}}])
def test_facts_of_another_shape_are_a_sentence(
    broken: dict, exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path
) -> None:
    run = copy.copy(exported_run) | {"benchmark": benchmark(**broken)}
    with pytest.raises(BadInput, match=r"a-run: its facts or preprocess\.json aren't as"):
        readme.text(
            {"run": "a-run", "name": "a", "for": "web-service", "target": "onnx-int8", "serial": 1,
             "created": "", "edgeres": "", "signer": None},
            run, {"size_px": 1, "mean": [], "std": []}, {}, SAMPLES / "web-service",
        )  # fmt: skip
