"""Is a certificate about this model, and was every gate met? Judged anew from its values."""

from __future__ import annotations

from collections.abc import Iterator

from edgeres.bundle.documents import Certificate, CertificateRow, GateRow
from edgeres.types import Gate


def row_of(certificate: Certificate, target: str) -> CertificateRow | None:
    """What a certificate says of a target's file; None unless it says one thing."""
    rows = [row for row in certificate.files if row.target == target]
    return rows[0] if len(rows) == 1 else None


def findings(certificate: Certificate, target: str, file: str, sha256: str) -> Iterator[str]:
    """What keeps a certificate from being a proof of this file, a sentence each.

    Args:
        file: its name; sha256: of the file as it is (`edgeres.disk.file_sha256`).
    """
    from edgeres.verification.gates import required

    row = row_of(certificate, target)
    if row is None:
        yield f"the certificate says nothing of {target}, or several things"
        return
    if (row.file.file, row.file.sha256) != (file, sha256):
        yield f"the certificate is about another file than model/{file}"
    for gate in row.gates:
        judged = Gate(gate.name, gate.measured, gate.comparison, gate.limit, gate.unit)
        if not judged.passed:
            yield f"the certificate's gate is not met: {judged.sentence()}"
    for name, (comparison, limit) in required(target).items():
        asked = [g for g in row.gates if _is(g, name)]
        if not asked:
            yield f"the certificate lacks the gate '{name}'"
        elif any(g.comparison != comparison or limit not in (None, g.limit) for g in asked):
            yield f"the certificate's gate '{name}' asks something else than edgeres does"


def _is(gate: GateRow, name: str) -> bool:
    return gate.name in (name, f"{name} not excluded")  # where a recipe leaves layers float
