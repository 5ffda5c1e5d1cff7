"""Whether a run's files are what was verified: a run in, what speaks against it out.

Nothing recorded is believed: files are held against their hashes, artifacts against those they were
made from, certificates against the files that are there, and gates are judged from their values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeres import facts
from edgeres.artifact import Artifact
from edgeres.errors import StorageError
from edgeres.runs import Run, require_name
from edgeres.types import gate_of

if TYPE_CHECKING:
    from edgeres import records

VERIFIED = "verify.json"


def require_whole(run: Run) -> None:
    """Make sure that nothing of a run was changed since it was made.

    Raises:
        StorageError: a file isn't what it was made as, the recipe isn't the run's, or an artifact
            was made from another one than the run has.
    """
    require_name(run)
    require_related(run)
    for artifact in run.artifacts.values():
        artifact.folder(again=True)
    for artifact in _exports(run):
        _certificate(run, artifact)


def require_related(run: Run) -> None:
    """Make sure that every artifact of a run was made from those that the run has.

    Raises:
        StorageError: one was made from another one.
    """
    for step, artifact in run.artifacts.items():
        for role, parent in artifact.parents.items():
            known = f"export:{role.removeprefix('export:')}"
            found = run.artifacts.get(known if parent["stage"] == "export" else parent["stage"])
            if found is not None and found.digest != parent["digest"]:
                raise StorageError(
                    f"{run.path}: {step} was made from another {parent['stage']} than the run has; "
                    f"run {run.path}/recipe.lock.yaml again"
                )


def findings(run: Run) -> tuple[str, ...]:
    """The gates and limits of a run that are not met.

    Raises:
        StorageError: a certificate is damaged, or another file's.
    """
    exports = _exports(run)
    if not exports:
        return ("it has no exported files; `edgeres export` makes some",)
    return (*(f for a in exports for f in _gates(run, a)), *_limits(run))


def _gates(run: Run, export: Artifact) -> Iterator[str]:
    from edgeres.verification.gates import required

    row = _certificate(run, export)
    name = _target(export)
    if row is None:
        files = ",".join(sorted(map(_target, _exports(run))))
        yield (f"{name}: was never verified (edgeres run {run.path}/recipe.lock.yaml "
               f"--set 'export.targets=[{files}]' does that)")  # fmt: skip
        return
    if not row["gates"]:
        yield f"{name}: no gate was asked of it"
    for g in row["gates"]:
        if not (judged := gate_of(g)).passed:
            yield f"{name}: {judged.sentence()}"
    known = {g["name"] for g in row["gates"]}
    for asked in required(name):
        if not known & {asked, f"{asked} not excluded"}:
            yield f"{name}: its certificate lacks the gate '{asked}'; verify it anew"


def _certificate(run: Run, export: Artifact) -> records.Filed | None:
    """What was verified of a file; None if nothing was.

    Raises:
        StorageError: it isn't this file, or not these networks, that it is about.
    """
    verified = run.artifacts.get("verify")
    if verified is None:
        return None
    document = verified.read_json(VERIFIED, facts.CERTIFICATE)
    name, origin = _target(export), export.parents.get("model", {}).get("digest")
    rows: list[records.Filed] = document["files"]
    row = next((row for row in rows if row["target"] == name), None)
    if row is not None and (
        row["file"]["sha256"] != export.facts["exported"]["sha256"] or row["origin"] != origin
    ):
        raise StorageError(
            f"{verified.path}/{VERIFIED}: is about another file than the run's {name}; "
            f"run {run.path}/recipe.lock.yaml again"
        )
    return row


def _limits(run: Run) -> list[str]:
    from edgeres.stages import budgets

    found = run.artifacts.get("budgets")
    return budgets.failures(found.facts) if found else []


def _exports(run: Run) -> list[Artifact]:
    return [a for a in run.artifacts.values() if a.stage == "export"]


def _target(export: Artifact) -> str:
    return str(export.facts["exported"]["target"])
