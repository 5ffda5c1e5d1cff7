"""MLflow: a round trip through a real server on loopback. TensorBoard: what its reader reads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeres import tracking
from edgeres.artifact import Artifact
from edgeres.errors import BadInput, DeviceError, MissingComponent
from edgeres.tracking import mlflow, tensorboard

ROOT = Path(__file__).parents[2]
OWN = ROOT / ".venv-mlflow" / "bin" / "mlflow"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tracking.Tracked:
    """A run with a trained network, an export of two files, and a certificate."""
    folder = tmp_path_factory.mktemp("run")
    for name in ("teacher", "export", "verify"):
        (folder / name).mkdir()
    rows = [{"epoch": e, "loss": 2.0 / e, "validation_top1": 1 - 0.5 / e} for e in (1, 2, 3)]
    rows[1]["loss"] = float("nan")
    (folder / "teacher" / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    package = folder / "export" / "m.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Data" / "weights bin").write_bytes(bytes(range(256)))
    (folder / "verify" / "verify.json").write_text("{}")
    (folder / "report.html").write_text("<!DOCTYPE html>")
    row = {"target": "coreml-int8", "test": {"correct": 9, "n": 10}, "agreement": 0.99,
           "worst_codes": 1.0}  # fmt: skip
    report = {"target": "coreml-int8", "device": "host", "emulated": False,
              "latency": {"median_ns": 2e6, "p90_ns": None, "p99_ns": None}}  # fmt: skip
    facts = {
        "teacher": {"test": {"correct": 97, "n": 100}},
        "export": {"exported": {"target": "coreml-int8", "file": "m.mlpackage", "size_bytes": 256}},
        "verify": {"files": [row]}, "benchmark": {"reports": [report]},
    }  # fmt: skip
    artifacts = {
        {"export": "export:coreml-int8"}.get(name, name): Artifact(
            name, "key", f"{name}-digest", folder / name, {}, {}, found, {}, 0.0
        )
        for name, found in facts.items()
    }
    recipe = {"seed": 3, "prune": {"macs": 0.5, "odd": None}, "description": "x" * 9000}
    return tracking.described("tiny-0a1b2c", recipe, artifacts, folder)


def test_a_run_is_told_whole(told: tracking.Tracked) -> None:
    assert told.params["prune.macs"] == "0.5" and "prune.odd" not in told.params
    assert tracking.Point("teacher/validation_top1", 3, 1 - 0.5 / 3) in told.points
    assert tracking.Point("coreml-int8/host/latency_median_ms", 0, 2.0) in told.points
    assert set(told.files) == {"report.html", "certificate.json", "models/coreml-int8/m.mlpackage"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mlflow.Server]:
    """A server that we start ourselves, with its SQLite store, as without MLFLOW_TRACKING_URI."""
    program = os.environ.get("EDGERES_MLFLOW") or (str(OWN) if OWN.exists() else None)
    if program is None and shutil.which("mlflow") is None:
        pytest.skip("no mlflow program: `make test` installs it into .venv-mlflow")
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        if program:
            patch.setenv("EDGERES_MLFLOW", program)
        with mlflow._local_server(folder) as address:
            assert (folder / "mlflow.db").exists()
            yield mlflow.Server(address)


def test_mlflow_gives_back_what_it_was_told(
    server: mlflow.Server, told: tracking.Tracked
) -> None:  # fmt: skip
    found = mlflow.track(told, "an experiment", server.uri)
    run = server._send("GET", f"/api/2.0/mlflow/runs/get?run_id={found['run_id']}")["run"]
    assert (run["info"]["run_name"], run["info"]["status"]) == ("tiny-0a1b2c", "FINISHED")
    params = {p["key"]: p["value"] for p in run["data"]["params"]}
    assert params["seed"] == "3" and len(params["description"]) == 6000
    tags = {t["key"]: t["value"] for t in run["data"]["tags"]}
    assert tags["edgeres.digest.export_coreml-int8"] == "export-digest"
    query = f"run_id={found['run_id']}&metric_key="
    curve = server._send("GET", f"/api/2.0/mlflow/metrics/get-history?{query}teacher/loss")
    assert [(m["step"], m["value"]) for m in curve["metrics"]] == [(1, 2.0), (3, 2 / 3)]  # no NaN
    place = f"{run['info']['experiment_id']}/{found['run_id']}/artifacts/models/coreml-int8"
    address = f"{server.uri}/api/2.0/mlflow-artifacts/artifacts/{place}/m.mlpackage/Data"
    with urllib.request.urlopen(f"{address}/weights%20bin", timeout=60) as answer:
        assert answer.read() == bytes(range(256))
    assert found["models"] == {"tiny-coreml-int8": 1}
    again = mlflow.track(told, "an experiment", server.uri)
    assert again["models"] == {"tiny-coreml-int8": 2}
    version = server._send(
        "GET", "/api/2.0/mlflow/model-versions/get?name=tiny-coreml-int8&version=2"
    )["model_version"]
    assert version["run_id"] == again["run_id"]
    assert {"key": "edgeres.digest.teacher", "value": "teacher-digest"} in version["tags"]


def test_what_the_server_refuses_is_one_sentence(server: mlflow.Server) -> None:
    with pytest.raises(BadInput, match=r"refused with \d+ .*no-such-run") as error:
        server.call("runs/update", {"run_id": "no-such-run", "status": "FINISHED"})
    assert "\n" not in str(error.value)


def test_without_a_server_it_says_what_to_start(
    told: tracking.Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "EDGERES_MLFLOW"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingComponent, match="set MLFLOW_TRACKING_URI"):
        mlflow.track(told)
    with pytest.raises(DeviceError, match=r"no answer .*is the MLflow server up"):
        mlflow.track(told, uri="http://127.0.0.1:9")
    with pytest.raises(BadInput, match="only http and https"):
        mlflow.track(told, uri="file:///etc")


def test_tensorboard_reads_the_curves(told: tracking.Tracked, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="edgeres[tensorboard] is not installed")
    code = """
import json, sys
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New as Reader
reader, found = Reader(sys.argv[1]), []
try:
    while True:
        reader.GetNext()
        for v in Event.FromString(reader.record()).summary.value:
            found.append([v.tag, Event.FromString(reader.record()).step, v.simple_value])
except Exception as end:
    assert "OutOfRange" in type(end).__name__, end
print(json.dumps(found))
"""
    for _ in range(2):  # the second time replaces the first
        result = tensorboard.track(told, tmp_path / "logs")
    (file,) = (tmp_path / "logs").iterdir()
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True,
                          check=True)  # fmt: skip
    found = json.loads(done.stdout)
    assert ["teacher/validation_top1", 2, 0.75] in found
    assert [tag for tag, _, _ in found[-2:]] == ["recipe", "lineage"]
    assert len(found) == result["scalars"] + 2
