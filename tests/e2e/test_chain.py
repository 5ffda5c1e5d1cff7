"""The whole chain with the real libraries, as a person runs it, and what is done with it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process import edgeres

from edgeres import runtimes
from edgeres.measurement import protocol
from edgeres.measurement.runners import Preset

RECIPE = """
name: tiny
data: {source: digits, size: 16, calibration: 64}
train: {augment: [crop], batch_size: 64}
teacher: {model: resnet8, train: {epochs: 3}}
distill: {student: resnet8-w0.5, train: {epochs: 3}}
prune: {macs: 0.8, max_drop: null, train: {epochs: 1, learning_rate: 0.02}}
quantize: {method: qat, train: {epochs: 1, learning_rate: 0.01}}
export: {targets: [tflite-int8, onnx-fp32, onnx-int8, coreml-int8]}
verify: {agreement: 0.98}
benchmark: {preset: quick}
budgets: {limits: [{target: tflite-int8, size_kb: 100, agreement: 0.98}]}
report: {}
"""
STEPS = ["data", "teacher", "distill", "prune", "quantize", "export:tflite-int8",
         "export:onnx-fp32", "export:onnx-int8", "export:coreml-int8", "verify", "benchmark",
         "budgets", "report"]  # fmt: skip


def model_hashes(result: dict) -> dict[str, str]:
    return {step: entry["facts"]["exported"]["sha256"]
            for step, entry in result["artifacts"].items()
            if step.startswith("export")}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _short_sessions() -> Iterator[None]:
    """No test here looks at a latency."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(protocol.PRESETS, "quick", Preset(16, 0.01, 1.0, 0.1, sessions=2))
        yield


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A finished run of the tiny recipe."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "tiny.yaml").write_text(RECIPE)
    done = edgeres("run", "tiny.yaml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout)


def test_every_stage_made_its_artifact(chain: tuple[Path, dict]) -> None:
    folder, result = chain
    assert list(result["artifacts"]) == STEPS
    facts = {step: entry["facts"] for step, entry in result["artifacts"].items()}
    assert facts["verify"]["passed"] is True
    assert facts["prune"]["macs_after"] <= 0.8 * facts["prune"]["macs_before"]
    assert facts["quantize"]["test"]["correct"] / facts["quantize"]["test"]["n"] > 0.5
    for row in facts["verify"]["files"]:
        if row["target"].endswith("int8"):
            assert row["float_operators"] == []
            assert row["scales"]["equal"] == row["scales"]["compared"] > 20
    run = folder / result["run"]
    assert (run / "recipe.lock.yaml").exists()
    assert (run / "report.html").stat().st_size > 10_000
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "done"] == STEPS


def test_the_second_time_everything_is_cached(chain: tuple[Path, dict]) -> None:
    folder, result = chain
    plan = edgeres("run", "tiny.yaml", "--dry-run", "--json", cwd=folder)
    states = {s["step"]: s["state"] for s in json.loads(plan.stdout)["steps"]}
    measured = {"benchmark": "asks a device", "budgets": "waits", "report": "waits"}
    assert states == {step: measured.get(step, "cached") for step in STEPS}
    again = edgeres("run", "tiny.yaml", "--json", cwd=folder)
    assert again.returncode == 0
    assert {k: v["digest"] for k, v in json.loads(again.stdout)["artifacts"].items()} == {
        k: v["digest"] for k, v in result["artifacts"].items()}  # fmt: skip


def test_a_budget_that_is_missed_fails_the_run_and_is_in_its_report(
    chain: tuple[Path, dict],
) -> None:
    folder, result = chain
    strict = ["run", "tiny.yaml", "--set", "budgets.limits=[{size_kb: 1, target: tflite-int8}]"]
    done = edgeres(*strict, cwd=folder)
    assert done.returncode == 1
    assert "tflite-int8 on host: size_kb is" in done.stderr
    run = next(line.split()[1] for line in done.stderr.splitlines() if line.startswith("run "))
    report = json.loads((folder / run / "report.json").read_text())
    assert [row["verdict"] for row in report["budgets"]] == ["fail"]
    assert edgeres("check", run, cwd=folder).returncode == 1
    assert edgeres("promote", run, cwd=folder).returncode == 1
    assert edgeres("check", result["run"], cwd=folder).returncode == 0
    found = json.loads(edgeres("check", result["run"], "--json", cwd=folder).stdout)
    assert {r["measure"] for r in found["results"]} == {"size_kb", "agreement"}
    shutil.rmtree(folder / run)
    orphans = json.loads(edgeres("clean", "--json", cwd=folder).stdout)["artifacts"]
    assert {row["artifact"].split("-")[0] for row in orphans} == {"budgets", "report"}


def test_verify_from_the_run_folder_and_a_tampered_file(chain: tuple[Path, dict]) -> None:
    folder, result = chain
    run = result["run"]
    done = edgeres("verify", run, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True

    entry = result["artifacts"]["export:tflite-int8"]
    original = (folder / entry["path"] / entry["facts"]["exported"]["file"]).read_bytes()
    weights = bytearray(original)
    middle = len(weights) // 2
    weights[middle : middle + 2000] = bytes(255 - b for b in weights[middle : middle + 2000])
    (folder / "bad.tflite").write_bytes(weights)
    failed = edgeres("verify", "bad.tflite", "--against", run, cwd=folder)
    assert failed.returncode in (1, 2), failed.stdout
    assert "bad.tflite" in failed.stdout + failed.stderr or "FAILED" in failed.stdout


def test_other_runtimes_are_asked_about_a_runs_files(
    chain: tuple[Path, dict], tmp_path: Path
) -> None:
    folder, result = chain
    on = ("--on", "litert-builtin,onnxruntime-unoptimized")
    done = edgeres("verify", result["run"], *on, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    rows = {row["target"]: row for row in json.loads(done.stdout)["files"]}
    assert [r["runtime"] for r in rows["tflite-int8"]["runtimes"]] == ["litert-builtin"]
    assert [r["runtime"] for r in rows["onnx-int8"]["runtimes"]] == ["onnxruntime-unoptimized"]
    assert "runtimes" not in rows["coreml-int8"]
    for row in (rows["tflite-int8"], rows["onnx-int8"]):
        (asked,) = row["runtimes"]
        assert asked["agreement"] >= 0.98 and asked["n"] == row["test"]["n"]
        names = [gate["name"] for gate in row["gates"]]
        assert f"{asked['runtime']}: top-1 agreement" in names
    shown = edgeres("verify", result["run"], *on, "--on-samples", "7", cwd=folder)
    assert re.search(r"^litert-builtin .* \d/7 ", shown.stdout, re.M), shown.stdout
    unused = edgeres("verify", result["run"], "--on-samples", "7", cwd=folder)
    assert unused.returncode == 2 and "name one with --on" in unused.stderr
    assert re.search(r"^litert-builtin +tflite-int8 +passed ", shown.stdout, re.M)
    refused = edgeres("verify", result["run"], "--on", "rk3588x", cwd=folder)
    assert refused.returncode == 2 and "did you mean 'rk3588'" in refused.stderr
    file = next(Path(folder, result["run"]).glob("artifacts/export*/*.onnx"), None) or next(
        (folder / "runs").rglob("*-int8.onnx"))  # fmt: skip
    wrong = edgeres("inspect", file, "--on", "litert-builtin", cwd=folder)
    assert wrong.returncode == 2 and "takes tflite-int8" in wrong.stderr


def test_a_proof_for_every_image_is_asked_for(chain: tuple[Path, dict]) -> None:
    """Scales of any size have sums that kernels round differently; portable ones have none."""
    folder, result = chain
    done = edgeres("verify", result["run"], "--prove", cwd=folder)
    assert done.returncode == 1
    assert "failed: tflite-int8: layers that kernels round differently" in done.stdout
    assert "failed: coreml" not in done.stdout  # whose kernels are none of those
    assert re.search(r"conv1, channel 0: the sum -?\d+ becomes ", done.stdout)
    settings = ("quantize.scheme=w8a8-portable", "quantize.method=ptq", "verify.prove=true",
                "export.targets=[tflite-int8, onnx-int8]")  # fmt: skip
    again = [word for setting in settings for word in ("--set", setting)]
    done = edgeres("run", "tiny.yaml", *again, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    for row in made["artifacts"]["verify"]["facts"]["files"]:
        assert row["bit_equal"] == 1.0
        assert row["proof"]["holds"] and row["proof"]["sums"] > 1_000_000
        assert "layers that kernels round differently" in [g["name"] for g in row["gates"]]
    report = Path(folder, made["run"], "report.html").read_text()
    assert "every image has the same codes in LiteRT (XNNPACK)" in report
    none = edgeres("export", made["run"], "--target", "tflite-fp32", "--json", cwd=folder)
    floats = edgeres("verify", json.loads(none.stdout)["run"], "--prove", cwd=folder)
    assert floats.returncode == 2 and "of which there is none" in floats.stderr


def test_a_file_that_a_runtime_is_known_to_get_wrong_is_refused(
    chain: tuple[Path, dict],
) -> None:
    folder, _ = chain
    if why := runtimes.missing("litert-gpu"):
        pytest.skip(why)
    asked = ["run", "tiny.yaml", "--until", "verify", "--set", "verify.on=[litert-gpu]"]
    refused = edgeres(*asked, cwd=folder)
    assert refused.returncode == 2
    assert "2 1x1 convolutions with stride 2 before an addition" in refused.stderr
    assert "edgeres export --gpu" in refused.stderr
    mended = edgeres(*asked, "--set", "export.gpu=true", cwd=folder)
    assert mended.returncode == 0, mended.stderr


def test_the_form_for_gpus_is_for_the_files_that_have_it(chain: tuple[Path, dict]) -> None:
    folder, result = chain
    wrong = edgeres("export", result["run"], "--target", "onnx-int8", "--gpu", cwd=folder)
    assert wrong.returncode == 2 and "export.gpu is for tflite-int8" in wrong.stderr
    made = result["run"]
    for target, options in (("tflite-int8", ["--gpu"]), ("onnx-int8", [])):  # of each other's runs
        done = edgeres("export", made, "--target", target, *options, "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)["run"]
        recipe = (folder / made / "recipe.lock.yaml").read_text()
        assert ("gpu: true" in recipe) == bool(options)


def test_a_copied_run_folder_is_all_that_verify_needs(
    chain: tuple[Path, dict], tmp_path: Path
) -> None:
    folder, result = chain
    shutil.copytree(folder / result["run"], tmp_path / "sent", symlinks=False)
    done = edgeres("verify", "sent", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["target"]: row for row in json.loads(done.stdout)["files"]}
    assert rows["tflite-int8"]["layers"], "every layer was recomputed from its own inputs"
    assert max(layer["worst"] for layer in rows["tflite-int8"]["layers"]) <= 1
    assert len(rows["onnx-int8"]["residual_adds"]) == 3


NO_PLACE = {
    "tflite-int8": {"images of a batch mixed", "the inputs of a concatenation swapped"},
    "onnx-int8": {"a signature of another output", "the inputs of a concatenation swapped"},
    "coreml-int8": {"images of a batch mixed", "a signature of another output",
                    "the inputs of a concatenation swapped",
                    "an activation scale changed by 5 %"},
}  # fmt: skip


def test_the_self_test_catches_every_planted_fault(chain: tuple[Path, dict]) -> None:
    folder, result = chain
    done = edgeres("verify", result["run"], "--self-test", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)["trials"]
    assert [t for t in trials if t["planted"] and not t["caught"]] == []
    for target in ("tflite-int8", "onnx-int8", "coreml-int8"):
        left_out = {t["fault"] for t in trials if t["target"] == target and not t["planted"]}
        assert left_out <= NO_PLACE[target], "a fault that this format has a place for"


def test_a_promoted_run_answers_to_its_channel(chain: tuple[Path, dict]) -> None:
    folder, result = chain
    assert edgeres("report", "@stable", cwd=folder).returncode == 2
    done = edgeres("promote", Path(result["run"]).name, "--to", "stable", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert edgeres("report", "@stable", "--json", cwd=folder).returncode == 0
    assert Path(result["run"]).name in edgeres("history", cwd=folder).stdout
    done = edgeres("bundle", "@stable", "--for", "ios", "--out", "app.zip", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = edgeres("verify", "app.zip", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "worst difference 0" in done.stdout


def test_a_file_of_another_tool_is_told_apart(chain: tuple[Path, dict], tmp_path: Path) -> None:
    """litert-torch's own quantizer leaves residual adds in float; inspect and verify name them."""
    folder, result = chain
    foreign = tmp_path / "foreign.tflite"
    checkpoint = folder / result["artifacts"]["prune"]["path"]
    made = subprocess.run([sys.executable, "-c", FOREIGN, checkpoint, foreign], check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    seen = json.loads(edgeres("inspect", foreign, "--json", cwd=folder).stdout)
    assert any(name.startswith("ADD") for name in seen["float_operators"])
    assert 0 < seen["integer_share"]["operators"] < 1
    assert "in float: ADD" in edgeres("inspect", foreign, cwd=folder).stdout
    done = edgeres("verify", foreign, "--against", result["run"], cwd=folder)
    assert done.returncode == 1, done.stderr
    assert "FAILED" in done.stdout
    assert f"float operators {len(seen['float_operators'])}, needs == 0" in done.stdout
    assert "float operator: ADD" in done.stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty.tflite", b""), ("words.onnx", b"not a model"), ("picture.png", b"\x89PNG"),
     ("really-onnx.tflite", None)],
)  # fmt: skip
def test_what_is_no_model_gets_one_sentence(
    name: str, content: bytes | None, chain: tuple[Path, dict], tmp_path: Path
) -> None:
    folder, result = chain
    file = tmp_path / name
    if content is None:  # a good file under a wrong name
        entry = result["artifacts"]["export:onnx-int8"]
        content = (folder / entry["path"] / entry["facts"]["exported"]["file"]).read_bytes()
    file.write_bytes(content)
    for command in (["inspect", file], ["verify", file, "--against", result["run"]]):
        done = edgeres(*command, cwd=folder)
        assert done.returncode == 2
        lines = done.stderr.strip().splitlines()
        assert lines[-1].startswith("edgeres: ")
        assert name in lines[-1]
        assert "Traceback" not in done.stderr


FOREIGN = """
import sys, torch, litert_torch
from pathlib import Path
from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
from litert_torch.quantize.quant_config import QuantConfig
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from edgeres.models import spec, weights
from edgeres.models.resnet import ResNet
known = weights.load(Path(sys.argv[1])).spec
model = ResNet(spec.parse("resnet20-A", known.classes, known.preprocess)).eval()
px = model.spec.preprocess.size_px
quantizer = PT2EQuantizer().set_global(
    get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False))
graph = torch.export.export(model, (torch.zeros(1, 3, px, px),)).module()
prepared = prepare_pt2e(graph, quantizer)
prepared(torch.randn(1, 3, px, px))
network = litert_torch.to_channel_last_io(convert_pt2e(prepared, fold_quantize=False), args=[0])
network.training = False
litert_torch.convert(network, (torch.zeros(1, px, px, 3),),
                     quant_config=QuantConfig(pt2e_quantizer=quantizer)).export(sys.argv[2])
"""


def test_inspect_export_benchmark_and_report(chain: tuple[Path, dict]) -> None:
    folder, result = chain
    entry = result["artifacts"]["export:tflite-int8"]
    file = Path(entry["path"]) / entry["facts"]["exported"]["file"]
    inspected = json.loads(edgeres("inspect", file, "--json", cwd=folder).stdout)
    assert inspected["float_operators"] == []
    assert inspected["input"]["dtype"] == inspected["output"]["dtype"] == "int8"
    assert inspected["transposes"] == 0

    text = edgeres("inspect", file, cwd=folder).stdout
    assert "float operators" in text and re.search(r"\nresidual adds +3\n", text)

    done = edgeres("export", result["run"], "--target", "onnx-int8", "--out", "out", "--json",
                   cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (written,) = json.loads(done.stdout)["files"]
    assert (folder / written["path"]).read_bytes()[:1]

    measured = edgeres("benchmark", file, "--preset", "quick", "--json", cwd=folder)
    assert measured.returncode == 0, measured.stderr
    (report,) = json.loads(measured.stdout)["reports"]
    assert report["latency"]["median_ns"] > 0
    assert report["accuracy"] is None
    counted = edgeres("benchmark", file, "--preset", "quick", "--accuracy", "--json", cwd=folder)
    assert counted.returncode == 0, counted.stderr
    (verified,) = (f for f in result["artifacts"]["verify"]["facts"]["files"]
                   if f["target"] == "tflite-int8")  # fmt: skip
    accuracy = json.loads(counted.stdout)["reports"][0]["accuracy"]
    assert {k: accuracy[k] for k in ("correct", "n")} == verified["test"]
    assert accuracy["against_host"]["equal"] == 1
    assert set(accuracy["against_float"]) == {"lost", "won", "p"}

    (folder / result["run"] / "report.html").unlink()
    assert edgeres("report", result["run"], cwd=folder).returncode == 0
    assert (folder / result["run"] / "report.html").exists()


def test_list_clean_and_doctor(chain: tuple[Path, dict]) -> None:
    folder, result = chain
    rows = json.loads(edgeres("list", "runs", "--json", cwd=folder).stdout)
    assert Path(result["run"]).name in [row["run"] for row in rows]
    nothing = json.loads(edgeres("clean", "--json", cwd=folder).stdout)
    assert nothing["artifacts"] == []
    for run in (folder / "runs").glob("tiny-*"):
        for link in (run / "artifacts").iterdir():
            link.unlink()
    would = json.loads(edgeres("clean", "--dry-run", "--json", cwd=folder).stdout)
    assert len(would["artifacts"]) >= len(STEPS)
    assert would["freed_bytes"] > 100_000
    assert len(json.loads(edgeres("doctor", "--json", cwd=folder).stdout)) > 5
    # and put back what the other tests of this module use
    assert edgeres("run", "tiny.yaml", cwd=folder).returncode == 0
