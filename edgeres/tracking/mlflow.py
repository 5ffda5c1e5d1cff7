"""MLflow over its REST API 2.0, with the standard library: no client, whose pins clash with ours.

The server is MLFLOW_TRACKING_URI (http or https), with MLFLOW_TRACKING_TOKEN, or _USERNAME and
_PASSWORD, if it wants to know who asks. Without one, a server of an `mlflow` program on the PATH
keeps a local SQLite store, `mlflow.db` and `mlartifacts` in the present folder, while we write.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.errors import BadInput, DeviceError, MissingComponent
from edgeres.tracking import Tracked

if TYPE_CHECKING:
    from edgeres.text.runs import OnServer

EXPERIMENT = "edgeres"
_METRICS, _PARAMS = 1000, 100  # at most, in one request
_LONGEST_PARAM = 6000
_MAX_ANSWER = 16 * 1024**2
_START_S = 240


def track(run: Tracked, experiment: str = EXPERIMENT, uri: str | None = None) -> OnServer:
    """Write a run: params, metrics by step, files, and each exported model with its lineage.

    Returns:
        {"tracker", "server", "experiment", "run_id", "models": {name: version}}.

    Raises:
        BadInput: the server refuses what it is told, or its address isn't one of http.
        DeviceError: it can't be reached.
        MissingComponent: no server is named and there is no `mlflow` program to start one.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    with contextlib.nullcontext(uri) if uri else _local_server(Path.cwd()) as address:
        server = Server(address)
        run_id, place = server.start(run, experiment)
        for path, file in run.files.items():
            server.upload(place, path, file)
        models = {target: server.register(run, run_id, place, target) for target in run.models}
        server.call("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": _now()})
    return {"tracker": "mlflow", "server": uri or f"sqlite:///{Path.cwd() / 'mlflow.db'}",
            "experiment": experiment, "run_id": run_id,
            "models": dict(models.values())}  # fmt: skip


class Server:
    """The parts of an MLflow server's REST API that are needed here."""

    def __init__(self, uri: str):
        self.uri = uri.rstrip("/")
        if urllib.parse.urlsplit(self.uri).scheme not in ("http", "https"):
            raise BadInput(f"MLFLOW_TRACKING_URI is {uri}: only http and https are spoken here; "
                           f"mlflow server --backend-store-uri {uri}")  # fmt: skip
        self._opener = urllib.request.build_opener(_NoRedirects)

    def start(self, run: Tracked, experiment: str) -> tuple[str, str]:
        """A new run with its params and metrics: its id, and where its files go."""
        created = self.call("runs/create", {
            "experiment_id": self._experiment(experiment), "run_name": run.name,
            "start_time": _now(),
            "tags": [{"key": f"edgeres.digest.{_key(step)}", "value": digest}
                     for step, digest in run.lineage.items()],
        })["run"]["info"]  # fmt: skip
        run_id, now = created["run_id"], _now()
        params = [{"key": _key(k), "value": v[:_LONGEST_PARAM]} for k, v in run.params.items()]
        metrics = [{"key": _key(p.metric), "value": p.value, "timestamp": now, "step": p.step}
                   for p in run.points if math.isfinite(p.value)]  # fmt: skip
        for part in _parts(params, _PARAMS):
            self.call("runs/log-batch", {"run_id": run_id, "params": part})
        for part in _parts(metrics, _METRICS):
            self.call("runs/log-batch", {"run_id": run_id, "metrics": part})
        return run_id, created["artifact_uri"]

    def upload(self, place: str, path: str, file: Path) -> None:
        """A file, or every file of a folder, through the server.

        Raises:
            BadInput: the server doesn't take files (it was started with --no-serve-artifacts).
        """
        kind, _, folder = place.partition(":")
        if kind != "mlflow-artifacts":
            raise BadInput(f"{self.uri}: keeps files at {place}, which can't be reached through "
                           "it; start it with --serve-artifacts")  # fmt: skip
        folder = urllib.parse.urlsplit(folder).path.strip("/")
        if file.is_dir():
            for inner in sorted(p for p in file.rglob("*") if p.is_file()):
                self.upload(place, f"{path}/{inner.relative_to(file).as_posix()}", inner)
            return
        where = urllib.parse.quote(f"{folder}/{path}")
        self._send("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{where}", file.read_bytes())

    def register(self, run: Tracked, run_id: str, place: str, target: str) -> tuple[str, int]:
        """A new version of the model `<run's recipe>-<target>`, with what it came from."""
        name = f"{run.name.rpartition('-')[0] or run.name}-{target}"
        with contextlib.suppress(_Exists):
            self.call("registered-models/create", {"name": name})
        tags = {f"edgeres.digest.{_key(step)}": digest for step, digest in run.lineage.items()}
        found = self.call("model-versions/create", {
            "name": name, "run_id": run_id, "source": f"{place}/{run.models[target]}",
            "tags": [{"key": k, "value": v} for k, v in {"edgeres.run": run.name, **tags}.items()],
        })  # fmt: skip
        return name, int(found["model_version"]["version"])

    def call(self, method: str, body: Mapping[str, object]) -> dict[str, Any]:
        """POST to the API."""
        return self._send("POST", f"/api/2.0/mlflow/{method}", json.dumps(body).encode())

    def _experiment(self, name: str) -> str:
        query = urllib.parse.urlencode({"experiment_name": name})
        try:
            found = self._send("GET", f"/api/2.0/mlflow/experiments/get-by-name?{query}")
        except _Missing:
            return str(self.call("experiments/create", {"name": name})["experiment_id"])
        return str(found["experiment"]["experiment_id"])

    def _send(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        kind = "application/octet-stream" if method == "PUT" else "application/json"
        request = urllib.request.Request(self.uri + path, body, method=method,
                                         headers={"Content-Type": kind, **_who()})  # fmt: skip
        try:
            with self._opener.open(request, timeout=120) as answer:
                content = answer.read(_MAX_ANSWER)
        except urllib.error.HTTPError as error:
            raise _refusal(self.uri, error) from error
        except (OSError, ValueError) as error:
            raise DeviceError(
                f"{self.uri}: no answer ({error}); is the MLflow server up?"
            ) from error
        try:
            found = json.loads(content or b"{}")
        except ValueError as error:
            raise BadInput(f"{self.uri}: doesn't answer like an MLflow server") from error
        return found if isinstance(found, dict) else {}


class _Missing(BadInput):
    """What was asked for isn't there."""


class _Exists(BadInput):
    """What was to be made is there already."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the password elsewhere."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _refusal(uri: str, error: urllib.error.HTTPError) -> BadInput:
    try:
        said = json.loads(error.read(65536))
        code, words = str(said.get("error_code", "")), str(said.get("message", ""))
    except (ValueError, AttributeError, OSError):
        code, words = "", ""
    kind = {"RESOURCE_DOES_NOT_EXIST": _Missing, "RESOURCE_ALREADY_EXISTS": _Exists}
    clean = " ".join("".join(c if c.isprintable() else " " for c in words).split())[:300]
    return kind.get(code, BadInput)(f"{uri}: refused with {error.code} {code} {clean}".strip())


def _who() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user:
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


@contextlib.contextmanager
def _local_server(folder: Path) -> Iterator[str]:
    """An `mlflow server` on loopback with a SQLite store, for as long as it is needed."""
    program = os.environ.get("EDGERES_MLFLOW") or shutil.which("mlflow")
    if program is None:
        raise MissingComponent(
            "no MLflow server: set MLFLOW_TRACKING_URI, or put an `mlflow` program on the PATH "
            "(python3 -m venv ~/mlflow && ~/mlflow/bin/pip install mlflow; its own environment, "
            "for it pins other versions)"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
               "--artifacts-destination", str(folder / "mlartifacts")]  # fmt: skip
    # Its background jobs (evaluations of language models) are several more processes to start.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          env=environment, start_new_session=True) as server:  # fmt: skip
        try:
            _wait(address, server)
            yield address
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, 15)


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
            return
        time.sleep(0.3)
    raise DeviceError("the local MLflow server doesn't start; try `mlflow server` by hand")


def _key(name: str) -> str:
    """Of what MLflow allows in names."""
    return re.sub(r"[^\w\-./ ]", "_", name)[:250]


def _parts(rows: Sequence[object], size: int) -> Iterator[Sequence[object]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _now() -> int:
    return int(time.time() * 1000)
