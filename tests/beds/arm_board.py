"""An ARM board on loopback: the real sshd in front of an arm64 root whose programs qemu translates.

In: `arm_root`. Out: the fixture `arm_board`. Everything lives in a mount and a process namespace of
its own whose first process ends when its stdin does. So nothing is left on this machine, even after
a kill -9 of pytest: the kernel kills what ran in there and drops the mounts. What is written to the
board's files goes to memory (an overlay) and is gone with it.

Its kernels compute as real ARM's do; its speed and memory mean nothing.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from beds import arm_root

CPUS = ("cortex-a72", "cortex-a76")
"""Raspberry Pi 4 (no int8 dot product) and 5 (has it)."""

_FIRST_PROCESS = Path(__file__).with_suffix(".sh")
_BINFMT = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
# onnxruntime chooses kernels by this file: one that promises more than QEMU_CPU has ends in SIGILL.
_CPUINFO = {
    "cortex-a72": ("fp asimd evtstrm crc32 cpuid", "0x0", "0xd08", "3", "4 Model B Rev 1.4"),
    "cortex-a76": (
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
        "dcpop asimddp", "0x4", "0xd0b", "1", "5 Model B Rev 1.0",
    ),
}  # fmt: skip
_SSH_CONFIG = """\
Host *
  HostName 127.0.0.1
  User pi
  IdentityFile {work}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {work}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
"""
_SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {work}/host_key
PidFile none
AuthorizedKeysFile /run/authorized_keys
AuthenticationMethods publickey
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
SetEnv QEMU_CPU={cpu}
ChrootDirectory {root}
Subsystem sftp internal-sftp
MaxStartups 100
"""


@dataclass(frozen=True)
class ArmBoard:
    """A running board.

    Attributes:
        root: its files as this machine's root user sees them; never resolve() it.
        config: an ssh_config whose hosts are `cortex-a72` and `cortex-a76`, user pi (or root).
        work: the keys, known_hosts, sshd's configurations and logs.
        pids: CPU -> its sshd.
        ports: CPU -> its sshd's port on 127.0.0.1.
    """

    root: Path
    config: Path
    work: Path
    pids: dict[str, int]
    ports: dict[str, int]
    _folder: Path

    def chroot_argv(self, cpu: str) -> list[str]:
        """The start of a command line; one command string for the board's sh (root) follows."""
        return [
            "nsenter", f"--target={self.pids[cpu]}", "--mount", "--pid",
            "chroot", str(self._folder), "/bin/env", "-i", "PATH=/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME=/root", f"QEMU_CPU={cpu}", "/bin/sh", "-c",
        ]  # fmt: skip

    def sh(self, command: str, cpu: str = CPUS[-1]) -> str:
        """What a command, run as root on the board, printed."""
        return subprocess.run(
            [*self.chroot_argv(cpu), command], capture_output=True, text=True, check=True
        ).stdout

    def processes(self) -> dict[int, str]:
        """What runs on the board, by this machine's process ids: pid -> command line."""
        inside = Path(f"/proc/{self.pids[CPUS[0]]}/ns/pid").readlink()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if (folder / "ns/pid").readlink() == inside:
                    words = folder.joinpath("cmdline").read_bytes().split(b"\0")
                    found[int(folder.name)] = b" ".join(words).decode("utf-8", "replace").strip()
            except OSError:
                pass  # ended in between
        return found


@pytest.fixture(scope="session")
def arm_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArmBoard]:
    """An ARM board that ssh reaches, once for all tests."""
    reason = arm_root.missing()
    if reason:
        pytest.skip(reason)
    base, work = arm_root.folder(), tmp_path_factory.mktemp("arm_board")
    ports = _configure(work, base / "root")
    holder = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", str(_FIRST_PROCESS),
         str(base), str(work), str(_BINFMT), *CPUS],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdin and holder.stdout
    try:
        lines = [holder.stdout.readline().split() for _ in CPUS]
        assert all(lines), "the board's first process failed; its words are above"
        pids = {cpu: int(pid) for cpu, pid in lines}
        root = Path(f"/proc/{pids[CPUS[0]]}/root{base}/root")
        for port in ports.values():
            _await(port)
        yield ArmBoard(root, work / "ssh_config", work, pids, ports, base / "root")
    finally:
        holder.communicate(timeout=20)  # its stdin ends here


def _configure(work: Path, root: Path) -> dict[str, int]:
    """Keys, accounts, both sides' settings; returns each sshd's port."""
    work.chmod(0o755)
    for name in ("host_key", "user_key"):
        command = [
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            name,
            "-f",
            str(work / name),
        ]
        subprocess.run(command, check=True)
    sshd = pwd.getpwnam("sshd")  # sshd's own helper runs as it; people come from the board's list
    (work / "passwd").write_text(
        f"{arm_root.PASSWD}sshd:*:{sshd.pw_uid}:{sshd.pw_gid}::/run:/none\n"
    )
    names = ("root", "pi", "sshd")
    (work / "shadow").write_text("".join(f"{name}:*:19000:0:99999:7:::\n" for name in names))
    with contextlib.ExitStack() as reserved:
        sockets = [reserved.enter_context(socket.socket()) for _ in CPUS]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = {cpu: one.getsockname()[1] for cpu, one in zip(CPUS, sockets, strict=True)}
    key = (work / "host_key.pub").read_text()
    known = "".join(f"[127.0.0.1]:{port} {key}" for port in ports.values())
    (work / "known_hosts").write_text(known)
    (work / "user_key.pub").replace(work / "authorized_keys")
    (work / "ssh_config").write_text(_SSH_CONFIG.format(work=work))
    for cpu, port in ports.items():
        (work / f"{cpu}.cpuinfo").write_text(_cpuinfo(cpu))
        settings = _SSHD_CONFIG.format(work=work, root=root, cpu=cpu, port=port)
        (work / f"{cpu}.sshd_config").write_text(settings)
        with (work / "ssh_config").open("a") as file:
            file.write(f"Host {cpu}\n  Port {port}\n")
    return ports


def _cpuinfo(cpu: str) -> str:
    features, variant, part, revision, model = _CPUINFO[cpu]
    blocks = [
        f"processor\t: {i}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\n"
        f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: {variant}\n"
        f"CPU part\t: {part}\nCPU revision\t: {revision}\n\n"
        for i in range(os.cpu_count() or 1)
    ]
    return "".join(blocks) + f"Model\t\t: Raspberry Pi {model}\n"


def _await(port: int) -> None:
    """Until sshd greets."""
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as one:
            if one.recv(4):
                return
        time.sleep(0.05)
    raise RuntimeError(f"sshd does not answer on port {port}")
