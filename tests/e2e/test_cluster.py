"""A recipe on a cluster: real Slurm runs its steps; machines share a store without flock."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import in_process
import pytest

from edgeres import locks, run_state

RECIPE = """
name: small
data: {source: digits, size: 8, calibration: 32}
train: {epochs: 2, batch_size: 128}
teacher: {model: resnet8}
quantize: {method: ptq}
export: {targets: [onnx-int8, qoperator-int8]}
report: {}
"""
CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={port}
SlurmdPort={other}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
MailProg=/bin/true
ReturnToService=2
NodeName=localhost CPUs={cpus}
PartitionName=all Nodes=localhost Default=YES State=UP
"""
# What a file system without locks says, for every process whose PYTHONPATH this is in.
WITHOUT_FLOCK = """
import errno, fcntl
def refused(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = refused
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of this machine; the environment in which sbatch finds it."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not _found(name)]
    if missing or os.getuid():
        pytest.skip(f"needs to be root, and Debian's slurm: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    port, other = _free_ports()
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(folder=folder, port=port, other=other, cpus=os.cpu_count())
    )
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munged = [f"--{what}={folder}/munge.{end}" for what, end in (
        ("key-file", "key"), ("socket", "sock"), ("pid-file", "pid"), ("log-file", "log"),
        ("seed-file", "seed"))]  # fmt: skip
    started = []
    try:
        for command in (["munged", "--foreground", "--force", *munged], ["slurmctld", "-D"],
                        ["slurmd", "-D"]):  # fmt: skip
            log = (folder / f"{command[0]}.out").open("w")
            started.append(subprocess.Popen([_found(command[0]) or "", *command[1:]], stdout=log,
                                            stderr=log, env=environment))  # fmt: skip
            if command[0] == "munged":
                _wait(lambda: (folder / "munge.sock").exists(), 30)
        _wait(lambda: "idle" in _said(["sinfo", "-h", "-o", "%T"], environment), 60)
        yield environment
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def test_slurm_makes_each_step_when_what_it_needs_is_done(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    written = in_process.edgeres("run", "recipe.yaml", "--executor", "slurm-script", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    (tmp_path / "jobs.sh").write_text(written.stdout)
    environment = {**slurm, "SBATCH_TRAINING": "", "SBATCH_OTHERS": "--mem=0"}
    submitted = subprocess.run(["bash", "jobs.sh"], cwd=tmp_path, env=environment, text=True,
                               capture_output=True, check=False)  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    assert submitted.stdout.count(": job ") == 6
    _wait(lambda: not _said(["squeue", "-h"], slurm).strip(), 300)
    said = {p.name: p.read_text()[-500:] for p in tmp_path.glob("slurm-*.out")}
    assert len(said) == 6, said
    (run,) = tmp_path.glob("runs/small-*")
    assert run_state.of(run).whole, said
    assert (run / "report.html").exists()
    plan = in_process.edgeres("run", "recipe.yaml", "--dry-run", cwd=tmp_path)
    assert "0 of 6 steps to do" in plan.stdout
    done = [e["step"] for e in _events(run) if e["event"] == "done"]
    assert sorted(done) == sorted({*done})
    assert done.index("quantize") < done.index("export:onnx-int8") < done.index("report")


def test_a_step_needs_those_before_it(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    early = in_process.edgeres("step", "recipe.yaml", "quantize", cwd=tmp_path)
    assert early.returncode == 2
    assert "quantize needs data, which the store lacks" in early.stderr
    wrong = in_process.edgeres("step", "recipe.yaml", "quantise", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "quantize" in wrong.stderr
    executor = in_process.edgeres("run", "recipe.yaml", "--executor", "slurm", cwd=tmp_path)
    assert executor.returncode == 2
    assert "slurm-script" in executor.stderr


def test_jobs_have_what_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeres.devices._profiles._allowed", False)  # what the command sets
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    given = ("--procs", "2", "--allow-device-programs", "--until", "teacher", "--set", "seed=7")
    script = in_process.edgeres(
        "run", "recipe.yaml", "--executor", "slurm-script", *given, cwd=tmp_path
    ).stdout
    assert script.count("--procs 2 --allow-device-programs") == script.count("sbatch ") == 2
    (recipe,) = tmp_path.glob("runs/*/recipe.lock.yaml")
    assert str(recipe) in script and "seed: 7" in recipe.read_text()


def test_two_machines_share_a_store_without_flock_and_one_dies(tmp_path: Path) -> None:
    """Names of their own, process ids of their own, and locks that reach from one to the other."""
    if not _found("unshare") or os.getuid():
        pytest.skip("needs to be root, and unshare")
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(WITHOUT_FLOCK)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("epochs: 2", "epochs: 20"))
    shared = tmp_path / "runs" / "store" / "locks"
    shared.mkdir(parents=True)
    (shared / locks.MARKER).write_text("3")
    first = _machine("first", tmp_path)
    _wait(lambda: _begun(tmp_path) == 1, 120)
    os.killpg(first.pid, signal.SIGSTOP)  # so that it won't be ready before the second asks
    second = _machine("second", tmp_path)
    try:
        _wait(lambda: _begun(tmp_path) == 2, 120)
        time.sleep(1)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        assert second.wait(300) == 0, (tmp_path / "second").read_text()
    finally:
        for process in (first, second):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert _of_any(tmp_path)[-1]["step"] == "report"
    assert [p.name for p in (tmp_path / "runs" / "store" / "tmp").iterdir()] == []


def _machine(name: str, folder: Path) -> subprocess.Popen[bytes]:
    """`edgeres run` on a machine of this name."""
    path = os.pathsep.join([str(folder / "python"), str(Path(__file__).parents[2])])
    command = 'hostname "$0"; exec "$@"'
    with (folder / name).open("w") as out:
        return subprocess.Popen(
            ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "sh", "-c", command, name,
             sys.executable, "-m", "edgeres", "run", "recipe.yaml"],
            cwd=folder, stdout=out, stderr=out, start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip


def _begun(folder: Path) -> int:
    """How many machines wanted the teacher."""
    return sum(e["step"] == "teacher" and e["event"] == "started" for e in _of_any(folder))


def _of_any(folder: Path) -> list[dict[str, str]]:
    return [event for run in folder.glob("runs/small-*") for event in _events(run)]


def _events(run: Path) -> list[dict[str, str]]:
    log = run / "events.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin")


def _said(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True,
                          check=False).stdout  # fmt: skip


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("", 0))
        other.bind(("", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _wait(until: Callable[[], bool], most_s: float) -> None:
    end = time.monotonic() + most_s
    while not until():
        assert time.monotonic() < end
        time.sleep(0.2)
