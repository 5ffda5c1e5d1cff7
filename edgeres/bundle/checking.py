"""Checking a bundle: an archive or folder from anywhere in, what is wrong with it out.

Nothing in a bundle is run but its model, in the runtime that is installed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeres import bundle, contract, types
from edgeres.bundle import archive, certified, golden, microcontroller, signing, trust
from edgeres.bundle.archive import Contents
from edgeres.bundle.documents import (
    MOST_BYTES,
    SCHEMA,
    Certificate,
    CertificateRow,
    Manifest,
    Preprocess,
    Sbom,
    mapping,
    parsed,
)
from edgeres.disk import file_sha256
from edgeres.errors import BadInput
from edgeres.targets._conversion import examine

_SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class Signer:
    """Who signed.

    Attributes:
        state: "none", "unchecked" (cryptography isn't installed), "good" or "bad".
        key: the public key, DER; None where there is no good or unchecked signature.
        name: what the user calls the key; None if it isn't trusted.
    """

    state: str
    key: bytes | None = None
    name: str | None = None


@dataclass(frozen=True)
class _Bundle:
    path: Path
    contents: Contents
    manifest: Manifest
    signer: Signer
    findings: tuple[str, ...]

    def read(self, name: str) -> bytes:
        return self.contents.read(name, MOST_BYTES)


def is_bundle(path: Path) -> bool:
    """Whether a path looks like a bundle."""
    return (path / bundle.MANIFEST).exists() or (path.suffix == ".zip" and path.exists())


def check(path: Path, public_key: Path | None = None, signed: bool = False) -> dict[str, Any]:
    """What is wrong with a bundle.

    Args:
        public_key: whose it must be (PEM); None for any key, or none.
        signed: it must be signed, by that key or a trusted one.

    Returns:
        `findings` (sentences; none if all is well), `signature` (a Signer's state), `signer`
        (its fingerprint and name, or None), `golden` (worst difference, tolerance, who ran it;
        None if it wasn't run), and what the manifest says.

    Raises:
        BadInput: not a bundle, or a hostile one; a key that isn't one.
        MissingComponent: a signature must be checked and cryptography is not installed.
    """
    wanted = signing.public_key(public_key) if public_key is not None else None
    if wanted or signed:
        signing.require()
    ran = None
    with _opened(path) as opened:
        manifest, signer = opened.manifest, opened.signer
        if wanted is not None and signer.key == wanted:
            signer = Signer(signer.state, signer.key, signer.name or str(public_key))
        findings = [*opened.findings, *_unwanted(signer, wanted, signed)]
        if not findings:  # what was changed isn't looked at more closely
            ran, more = _promised(opened)
            findings += more
    fingerprint = signing.fingerprint(signer.key) if signer.key else None
    return {"bundle": str(path), "name": manifest.name, "run": manifest.run, "for": manifest.kind,
            "target": manifest.target, "edgeres": manifest.edgeres, "created": manifest.created,
            "serial": manifest.serial, "passed": not findings, "findings": findings,
            "signature": signer.state,
            "signer": {"fingerprint": fingerprint, "name": signer.name} if signer.key else None,
            "certificate_sha256": manifest.sha256.get(bundle.CERTIFICATE),
            "golden": ran}  # fmt: skip


def signer_of(path: Path) -> bytes:
    """The key whose signature is on a bundle.

    Raises:
        BadInput: not a bundle, a changed one, or one without a good signature.
        MissingComponent: cryptography is not installed.
    """
    signing.require()
    with _opened(path) as opened:
        if opened.findings or opened.signer.key is None:
            wrong = opened.findings[0] if opened.findings else "it is unsigned"
            raise BadInput(f"{path}: {wrong}, so there is no key in it to trust")
        return opened.signer.key


def baseline(path: Path) -> dict[str, Any]:
    """What a bundle says of its test set.

    Raises:
        BadInput: not a bundle, a changed one, or one without a baseline.
    """
    with _opened(path) as opened:
        if opened.findings:
            raise BadInput(f"{path}: {opened.findings[0]}; get the bundle anew")
        if bundle.BASELINE not in opened.contents.files:
            raise BadInput(f"{path}: has no {bundle.BASELINE}; make the bundle anew")
        return mapping(opened.read(bundle.BASELINE), f"{path}: {bundle.BASELINE}")


@contextmanager
def _opened(path: Path) -> Iterator[_Bundle]:
    """A bundle whose files are what its manifest says, or the findings that say which aren't."""
    with archive.opened(path) as contents:
        if bundle.MANIFEST not in contents.files:
            raise BadInput(f"{path}: not a bundle of edgeres (no {bundle.MANIFEST})")
        content = contents.read(bundle.MANIFEST, MOST_BYTES)
        where = f"{path}: {bundle.MANIFEST}"
        if (schema := mapping(content, where).get("schema")) != SCHEMA:
            raise BadInput(f"{where}: schema {schema!s:.20} is another edgeres version's; make the "
                           "bundle anew, or check it with that version")  # fmt: skip
        manifest = parsed(Manifest, content, where)
        if manifest.target not in bundle.KINDS.get(manifest.kind, ()):
            raise BadInput(f"{where}: no bundle for {manifest.kind[:40]!r} has a file of "
                           f"{manifest.target[:40]!r}")  # fmt: skip
        signer = _signer(contents, content, manifest, path)
        findings = [*_changes(contents, manifest.sha256)]
        if signer.state == "bad":
            findings.append("its signature is bad")
        yield _Bundle(path, contents, manifest, signer, tuple(findings))


def _changes(contents: Contents, sums: Mapping[str, str]) -> Iterator[str]:
    for name, expected in sums.items():
        file = contents.files.get(name)
        if file is None:
            yield f"{name} is missing"
        elif file_sha256(file) != expected:
            yield f"{name} was changed"
    for name in sorted(set(contents.files) - set(sums) - {bundle.MANIFEST, bundle.SIGNATURE}):
        yield f"{name} was added"


def _signer(contents: Contents, content: bytes, manifest: Manifest, path: Path) -> Signer:
    there = bundle.SIGNATURE in contents.files
    if manifest.signer is None:
        return Signer("bad" if there else "none")
    key = signing.decoded(manifest.signer, f"{path}: {bundle.MANIFEST}: signer")
    if not there:
        return Signer("bad")  # it was signed, and somebody took the signature away
    if not signing.available():
        return Signer("unchecked", key)
    signature = contents.read(bundle.SIGNATURE, _SIGNATURE_BYTES)
    if not signing.verified(content, signature, key):
        return Signer("bad")
    trusted = trust.known(key)
    return Signer("good", key, trusted.name if trusted else None)


def _unwanted(signer: Signer, wanted: bytes | None, signed: bool) -> Iterator[str]:
    """What is wrong with a signature, or none, that isn't bad in itself."""
    if signer.state == "none" and (wanted is not None or signed):
        yield "its signature is missing"
    elif signer.key is not None and wanted is not None and signer.key != wanted:
        yield f"it is signed by another key: {signing.fingerprint(signer.key)}"
    elif signer.key is not None and signed and signer.name is None:
        yield f"it is signed by a key that isn't trusted: {signing.fingerprint(signer.key)}"


def _promised(opened: _Bundle) -> tuple[dict[str, object] | None, list[str]]:
    """Whether a bundle holds all that one holds, about one model that still answers the same."""
    names, path = opened.manifest.sha256, opened.path
    missing = [f"{name} is missing from the manifest" for name in bundle.REQUIRED
               if name not in names]  # fmt: skip
    if missing:
        return None, missing
    where, target = f"{path}: {bundle.CERTIFICATE}", opened.manifest.target
    certificate = parsed(Certificate, opened.read(bundle.CERTIFICATE), where)
    row = certified.row_of(certificate, target)
    if row is None:
        return None, [f"the certificate says nothing of {target}, or several things"]
    model = f"model/{row.file.file}"
    mine = [n for n in names if n == model or n.startswith(f"{model}/")]
    if not mine:
        return None, [f"the certificate is about {model}, which isn't there"]
    allowed = {*bundle.REQUIRED, bundle.BASELINE, *mine}
    foreign = sorted(n for n in names if n not in allowed and not n.startswith("sample/"))
    if foreign:
        return None, [f"{name} is no part of a bundle" for name in foreign]
    sha256 = file_sha256(opened.contents.folder / model)
    labels = _text(opened, bundle.LABELS).splitlines()
    asked = golden.read(opened.contents, str(path))
    findings = [
        *certified.findings(certificate, target, row.file.file, sha256),
        *golden.findings(asked, row.file, len(labels)),
        *_about(opened, row, sha256),
    ]  # fmt: skip
    if findings:
        return None, findings
    findings += _of_itself(opened, opened.contents.folder / model, row, labels)
    if findings:
        return None, findings
    return golden.run(opened.contents, asked, str(path))


def _about(opened: _Bundle, row: CertificateRow, sha256: str) -> Iterator[str]:
    """Whether card, README and SBOM are about this model."""
    component = parsed(
        Sbom, opened.read(bundle.SBOM), f"{opened.path}: {bundle.SBOM}"
    ).metadata.component
    if component.name != row.file.file or {h.content for h in component.hashes} != {sha256}:
        yield f"{bundle.SBOM} is about another file"
    for name in (bundle.CARD, bundle.README):
        page = _text(opened, name)
        if sha256 not in page:
            yield f"{name} is about another file"
        if "<" in page:
            yield f"{name} holds HTML"


def _of_itself(
    opened: _Bundle, model: Path, row: CertificateRow, labels: list[str]
) -> Iterator[str]:
    """Whether the model takes and gives what is said of it, and agrees with what it says itself."""
    where = f"{opened.path}: {bundle.PREPROCESS}"
    content = opened.read(bundle.PREPROCESS)
    found = examine(model)  # first where a crash does no harm
    for name, tensor in (("input", row.file.input), ("output", row.file.output)):
        if (found[name]["shape"][1:], found[name]["dtype"]) != (tensor.shape[1:], tensor.dtype):
            yield f"the model's {name} has another shape or type than the certified file's"
    said = found["metadata"]
    if said.get("edgeres.labels", "\n".join(labels)) != "\n".join(labels):
        yield f"{bundle.LABELS} has other names than the model file itself"
    own = said.get("edgeres.preprocess")
    if own is not None:
        stated, whole = mapping(own.encode(), where), mapping(content, where)
        if any(key not in whole or whole[key] != value for key, value in stated.items()):
            yield f"{bundle.PREPROCESS} has other numbers than the model file itself"
    yield from _contract(content, where, found["input"], labels)
    if opened.manifest.kind == microcontroller.KIND:
        yield from microcontroller.findings(opened.contents, model, found["operators"])


def _contract(
    content: bytes, where: str, takes: dict[str, object], labels: list[str]
) -> Iterator[str]:
    """Whether the contract is what these numbers, the model's input and the labels give."""
    numbers, said = parsed(Preprocess, content, where), mapping(content, where)
    prepared = types.Preprocess(numbers.size_px, tuple(numbers.mean), tuple(numbers.std))
    rule = types.resize_rule(numbers.resize.model_dump() if numbers.resize else None)
    expected = contract.noted(prepared, rule)
    if "schema" in said:
        expected = contract.whole(prepared, rule, types.tensor_spec(takes), labels)
    wrong = sorted(k for k in said.keys() | expected.keys() if said.get(k) != expected.get(k))
    if wrong:
        yield f"{bundle.PREPROCESS}: {', '.join(wrong)} isn't that of this model and these labels"


def _text(opened: _Bundle, name: str) -> str:
    try:
        return opened.read(name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{opened.path}: {name}: not UTF-8") from error
