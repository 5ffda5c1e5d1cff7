"""An arm64 Debian root with the runtimes, built once and kept. In: versions. Out: a folder.

Download and unpack only: no maintainer script runs, nothing is emulated, and it takes seconds. The
folder is kept between test sessions, under a name made of what is in it. It belongs to root, as do
its parents, because sshd refuses to chroot into anything else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = {
    "qemu-aarch64-static": "qemu-user-static",
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
}
_CACHE = Path("/var/cache/edgeres-arm-board")
_KEPT_S = 30 * 86400
_SUITE, _PYTHON = "bookworm", "3.11"
_DEBIAN = (
    "busybox-static", "dash", "libstdc++6", "libgomp1", "libexpat1", "libffi8", "libssl3",
    "libuuid1", "zlib1g", "libbz2-1.0", "liblzma5", "python3.11-minimal", "libpython3.11-stdlib",
)  # fmt: skip
_WHEELS = (
    "ai-edge-litert", "onnxruntime", "numpy", "flatbuffers", "protobuf", "ml_dtypes",
    "backports.strenum", "tqdm", "typing_extensions", "packaging",
)  # fmt: skip
PASSWD = "root:*:0:0:root:/root:/bin/sh\npi:*:1000:1000:pi:/home/pi:/bin/sh\n"
_FOLDERS = ("proc", "sys", "dev", "tmp", "run", "root", "home/pi", "data/local/tmp", "small")


def missing() -> str | None:
    """Why no root can be built here; None if one can."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return "the ARM board is emulated on x86-64 Linux only"
    if os.geteuid() != 0:
        return "the ARM board needs root (chroot, mounts)"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = sorted({p for name, p in PROGRAMS.items() if not shutil.which(name, path=path)})
    if absent:
        return f"the ARM board needs `apt-get install {' '.join(absent)}`"
    trial = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True)
    if trial.returncode:
        return "the ARM board needs to mount (CAP_SYS_ADMIN), which this container forbids"
    return None


def folder() -> Path:
    """The root, in `root` of the folder returned; built if it isn't there yet.

    Raises:
        RuntimeError: mmdebstrap or pip failed; with its last words.
    """
    wheels = _requirements()
    recipe = hashlib.sha256(Path(__file__).read_bytes() + repr(wheels).encode()).hexdigest()
    _CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test sessions build it once
        final = _CACHE / recipe[:16]
        for old in _CACHE.iterdir():
            unused = time.time() - old.stat().st_mtime > _KEPT_S
            if old.suffix == ".partial" or (old.is_dir() and old != final and unused):
                shutil.rmtree(old)
        if not final.exists():
            partial = final.with_suffix(".partial")
            _build(partial, wheels)
            partial.rename(final)
        os.utime(final)
    return final


def _requirements() -> list[str]:
    """The wheels, at the versions of constraints.txt where it has them."""
    text = Path(__file__).parents[2].joinpath("constraints.txt").read_text("utf-8")
    pinned = dict(re.findall(r"(?m)^([\w.-]+)==([\w.+-]+)", text))
    return [f"{name}=={pinned[name]}" if name in pinned else name for name in _WHEELS]


def _build(target: Path, wheels: list[str]) -> None:
    root = target / "root"
    (target / "scratch").mkdir(parents=True)
    _run("mmdebstrap", "--quiet", "--arch=arm64", "--variant=extract", "--mode=root",
         f"--include={','.join(_DEBIAN)}", _SUITE, str(root))  # fmt: skip
    for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(root / waste, ignore_errors=True)
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "data/local/tmp"):
        (root / name).chmod(0o1777)
    os.chown(root / "home/pi", 1000, 1000)
    (root / "usr/bin/python3").symlink_to(f"python{_PYTHON}")
    applets = _run("qemu-aarch64-static", str(root / "bin/busybox"), "--list").split()
    for applet in applets:
        if not any((root / place / applet).exists() for place in ("bin", "usr/bin")):
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text("root:x:0:\npi:x:1000:\n")
    platforms = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_26", "manylinux2014")
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile",
         "--disable-pip-version-check", "--root-user-action=ignore", "--only-binary=:all:",
         *(f"--platform={name}_aarch64" for name in platforms), "--platform=any",
         f"--python-version={_PYTHON}", "--implementation=cp",
         f"--target={root}/usr/local/lib/python{_PYTHON}/dist-packages", *wheels)  # fmt: skip
    if f"{sys.version_info.major}.{sys.version_info.minor}" == _PYTHON:  # imports take half as long
        subprocess.run([sys.executable, "-m", "compileall", "-q", f"{root}/usr"], check=False)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise RuntimeError(f"{Path(argv[0]).name} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout
