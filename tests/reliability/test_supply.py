"""What edgeres is built on: pinned, licensed, reviewed; and who of it may talk to the network."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LICENCES = (
    "apache",
    "mit",
    "bsd",
    "mpl-2.0",
    "isc",
    "python",
    "psf",
    "zlib",
    "hpnd",
    "unlicense",
    "0bsd",
)
SILENT = {"torchao", "mlcommons-loadgen"}  # their metadata names no licence
PROPRIETARY = {"tensorrt-rtx-cu12-bindings", "tensorrt-rtx-cu12-libs"}  # an extra of its own
NETWORK = {
    "socket",
    "ssl",
    "http",
    "urllib",
    "ftplib",
    "smtplib",
    "requests",
    "httpx",
    "aiohttp",
    "asyncio",
}
# To an adb server on this machine, an attached device, publishers of weights, an MLflow server.
MAY_CONNECT = {
    f"edgeres/{name}.py"
    for name in ("devices/_adb_link", "devices/_adb_server", "devices/adb", "devices/apple",
                 "measurement/runners/coreml", "teachers/_download", "tracking/mlflow")
}  # fmt: skip


def requirements(extras: bool = True) -> list[Requirement]:
    """What pyproject.toml asks for."""
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = list(project["dependencies"])
    for more in project["optional-dependencies"].values() if extras else ():
        texts += more
    found = [Requirement(text) for text in texts]
    return [r for r in found if r.name != "edgeres"]


def locked() -> dict[str, tuple[str, int]]:
    """Name -> (version, number of hashes) of requirements.lock."""
    text = (ROOT / "requirements.lock").read_text()
    blocks = re.findall(
        r"^([a-z0-9._-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)", text, re.M
    )
    assert len(blocks) == len(re.findall(r"^[a-z0-9]", text, re.M)), "a line is not pinned by hash"
    return {name: (version, hashes.count("sha256")) for name, version, hashes in blocks}


def test_the_lock_pins_all_that_is_declared_and_names_no_server() -> None:
    versions = locked()
    for requirement in requirements():
        if requirement.marker and not requirement.marker.evaluate({"python_version": "3.11"}):
            continue
        version, hashes = versions[requirement.name.lower()]
        assert requirement.specifier.contains(version), requirement.name
        assert hashes > 0
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            name = re.sub(r"[-_.]+", "-", pin.name).lower()
            if name in versions:
                assert pin.specifier.contains(versions[name][0]), f"{name}: run `make lock`"
    assert not re.search(
        r"https?://|--(extra-)?index|--find-links", (ROOT / "requirements.lock").read_text()
    )


def test_every_dependency_has_a_licence_that_is_allowed() -> None:
    seen = 0
    for requirement in requirements():
        try:
            known = metadata.metadata(requirement.name)
        except metadata.PackageNotFoundError:
            continue  # an extra that isn't installed here
        seen += 1
        said = " ".join([known.get("License-Expression") or "", (known.get("License") or "")[:200],
                         *(known.get_all("Classifier") or ())]).lower()  # fmt: skip
        if requirement.name in PROPRIETARY or requirement.name in SILENT:
            continue
        assert any(licence in said for licence in LICENCES), f"{requirement.name}: {said[:200]}"
        assert "agpl" not in said and "gnu general public" not in said, requirement.name
    assert seen > 15


def test_every_dependency_is_reviewed() -> None:
    review = (ROOT / "docs" / "security.md").read_text()
    missing = [r.name for r in requirements(extras=True) if f"`{r.name}`" not in review]
    assert missing == []


def test_the_review_names_the_authors_that_the_packages_name() -> None:
    rows = re.findall(
        r"^\| `(\S+)` \| [^|]+ \| ([^|]+) \|", (ROOT / "docs/security.md").read_text(), re.M
    )
    seen = 0
    for package, author in rows:
        try:
            known = metadata.metadata(package)
        except metadata.PackageNotFoundError:
            continue
        seen += 1
        fields = [
            known.get(f) or "" for f in ("Author", "Author-email", "Maintainer", "Maintainer-email")
        ]
        name = author.removesuffix(" and others")
        assert name in " ".join(fields) if author != "–" else not any(fields), (package, fields)
    assert seen > 15


def test_only_these_modules_may_open_a_connection() -> None:
    users = set()
    for path in sorted((ROOT / "edgeres").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("edgeres/bundle/samples/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [])  # fmt: skip
            if {n.split(".")[0] for n in names} & NETWORK:
                users.add(name)
    assert users <= MAY_CONNECT, users - MAY_CONNECT
