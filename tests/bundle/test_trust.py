"""Whose bundle it is: keys that are trusted, the command line, and serials that only grow."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from beds.bundles import forged, key_pair, mended, zipped
from in_process import edgeres

from edgeres import registry
from edgeres.bundle import MANIFEST, SIGNATURE, checking, signing, trust
from edgeres.errors import BadInput, MissingComponent

pytest.importorskip("cryptography", reason="edgeres[signing] is not installed")
pytestmark = pytest.mark.usefixtures("own_config")
Files = Mapping[str, bytes]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: key_pair(folder, name) for name in ("mine", "other")}


def signed(files: Files, key: Path, **changes: object) -> dict[str, bytes]:
    """A bundle signed by a key, with other values in its manifest."""
    private = signing.private_key(key)
    signer = signing.encoded(signing.public_of(private))
    found = mended(files, manifest=files[MANIFEST], signer=signer, **changes)
    return {**found, SIGNATURE: private.sign(found[MANIFEST])}


@pytest.fixture
def unrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the bundle promises of its model is checked elsewhere."""
    monkeypatch.setattr(checking, "_promised", lambda _: (None, []))


def test_a_fingerprint_is_that_of_the_der_key(keys: dict) -> None:
    from cryptography.hazmat.primitives import serialization

    private, public = keys["mine"]
    loaded = serialization.load_pem_public_key(public.read_bytes())
    der = loaded.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert signing.public_key(public) == der == signing.public_of(signing.private_key(private))
    assert signing.fingerprint(der).replace("-", "") == hashlib.sha256(der).hexdigest()


def test_the_command_line_trusts_on_first_use(
    stored_run: Path, keys: dict, own_config: Path, tmp_path: Path
) -> None:
    """The whole way, by the real commands: make, sign, look, trust, look again, forget."""
    private, public = keys["mine"]
    shown = signing.fingerprint(signing.public_key(public))
    made = edgeres("bundle", stored_run, "--for", "web-service", "--key", private, "--out", "b.zip",
                   "--runs", stored_run.parent, cwd=tmp_path)  # fmt: skip
    assert made.returncode == 0 and f"signed with {shown}" in made.stdout, made.stderr
    look = ("verify", "b.zip")
    unknown = edgeres(*look, cwd=tmp_path)
    assert unknown.returncode == 0, unknown.stdout
    assert f"SIGNED BY AN UNKNOWN KEY {shown}: " in unknown.stdout
    assert "edgeres trust b.zip" in unknown.stdout and "made just now (" in unknown.stdout
    refused = edgeres(*look, "--require-signature", cwd=tmp_path)
    assert refused.returncode == 1 and "a key that isn't trusted" in refused.stdout
    added = edgeres("trust", "b.zip", "--name", "acme", cwd=tmp_path)
    assert added.returncode == 0 and f"added {shown}" in added.stdout, added.stderr
    file = own_config / "trusted_keys.json"
    assert file.stat().st_mode & 0o777 == 0o600 and own_config.stat().st_mode & 0o777 == 0o700
    known = edgeres(*look, "--require-signature", cwd=tmp_path)
    assert known.returncode == 0 and f"signed by acme ({shown})" in known.stdout
    assert json.loads(edgeres(*look, "--json", cwd=tmp_path).stdout)["signer"]["name"] == "acme"
    assert f"acme  {shown}" in edgeres("trust", cwd=tmp_path).stdout
    gone = edgeres("trust", "--remove", shown, cwd=tmp_path)
    assert gone.returncode == 0 and "no key is trusted yet" in gone.stdout
    assert "UNKNOWN KEY" in edgeres(*look, cwd=tmp_path).stdout
    assert [p.name for p in own_config.iterdir() if not p.name.endswith(".lock")] == [file.name]


def test_an_unsigned_bundle_is_said_in_capitals(good_bundle: Files, tmp_path: Path) -> None:
    zipped(good_bundle, tmp_path / "b.zip")
    done = edgeres("verify", "b.zip", cwd=tmp_path)
    assert done.returncode == 0 and "\nUNSIGNED\n" in done.stdout
    done = edgeres("verify", "b.zip", "--require-signature", cwd=tmp_path)
    assert done.returncode == 1 and "its signature is missing" in done.stdout
    assert "say whose key" in edgeres("trust", "b.zip", cwd=tmp_path).stderr
    done = edgeres("trust", "b.zip", "--name", "x", cwd=tmp_path)
    assert done.returncode == 2 and "it is unsigned, so there is no key" in done.stderr
    done = edgeres("verify", "--require-signature", cwd=tmp_path)
    assert done.returncode == 2 and "are for one bundle" in done.stderr


def test_a_real_process_says_the_same(
    good_bundle: Files, keys: dict, own_config: Path, tmp_path: Path
) -> None:
    zipped(signed(good_bundle, keys["mine"][0]), tmp_path / "b.zip")
    environment = {**os.environ, "XDG_CONFIG_HOME": str(own_config.parent)}
    for command, code, says in (
        (("trust", keys["mine"][1], "--name", "acme"), 0, "acme"),
        (("verify", "b.zip", "--require-signature"), 0, "signed by acme"),
        (("trust", keys["mine"][0]), 2, "a private key"),
    ):
        line = [sys.executable, "-m", "edgeres", *map(str, command)]
        done = subprocess.run(line, cwd=tmp_path, env=environment, check=False,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == code and says in done.stdout + done.stderr, done.stderr


def test_bad_signatures_always_fail(good_bundle: Files, keys: dict, tmp_path: Path) -> None:
    good = signed(good_bundle, keys["mine"][0])
    other = signed(good_bundle, keys["other"][0])
    unsigned = {n: d for n, d in good.items() if n != SIGNATURE}
    trust.add(signing.public_key(keys["mine"][1]), "acme", "2026-01-01T00:00:00Z")
    for files in (
        {**good, SIGNATURE: other[SIGNATURE]},  # does not fit the key it carries
        {**good, SIGNATURE: bytes(64)},
        {**good, SIGNATURE: b"short"},
        {**good, MANIFEST: good[MANIFEST].replace(b'"v1"', b'"v2"')},  # changed after signing
        unsigned,  # the manifest names a signer: the signature was taken away
        {**good_bundle, SIGNATURE: good[SIGNATURE]},  # the signer was taken away
        signed(good_bundle, keys["mine"][0]) | {SIGNATURE: b"x" * 64},
    ):
        zipped(files, tmp_path / "b.zip")
        result = checking.check(tmp_path / "b.zip")
        assert (result["passed"], result["signature"]) == (False, "bad")
        assert result["signer"] is None and "its signature is bad" in result["findings"]
        assert edgeres("verify", "b.zip", cwd=tmp_path).returncode == 1
    mine = forged(good, "labels.txt", b"a\n")  # all sums mended, the signature is another's
    zipped(mine, tmp_path / "b.zip")
    assert "its signature is bad" in checking.check(tmp_path / "b.zip")["findings"]


@pytest.mark.usefixtures("unrun")
def test_the_key_that_was_asked_for(good_bundle: Files, keys: dict, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    zipped(signed(good_bundle, keys["mine"][0]), path)
    found = checking.check(path, keys["mine"][1], signed=True)
    assert found["passed"] and found["signer"]["name"] == str(keys["mine"][1])
    wrong = checking.check(path, keys["other"][1])
    assert not wrong["passed"] and wrong["signature"] == "good"
    assert wrong["findings"][0].startswith("it is signed by another key: ")
    zipped(good_bundle, path)
    assert checking.check(path, keys["mine"][1])["findings"] == ["its signature is missing"]
    (tmp_path / "rsa.pub").write_text(
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    )
    for no_key in (keys["mine"][0], tmp_path / "rsa.pub", path, tmp_path, tmp_path / "none"):
        with pytest.raises(BadInput):
            checking.check(path, no_key)
    for no_key in (keys["mine"][1], path, tmp_path / "none"):
        with pytest.raises(BadInput):
            signing.private_key(no_key)


@pytest.mark.usefixtures("unrun")
def test_an_older_bundle_than_one_seen_before(
    good_bundle: Files, keys: dict, tmp_path: Path
) -> None:
    trust.add(signing.public_key(keys["mine"][1]), "acme", "2026-01-01T00:00:00Z")
    says = {}
    for serial in (5, 9, 7, 9):
        files = signed(good_bundle, keys["mine"][0], serial=serial, created="2026-01-02T00:00:00Z")
        zipped(files, tmp_path / "b.zip")
        done = edgeres("verify", "b.zip", cwd=tmp_path)
        assert done.returncode == 0 and " days ago (2026-01-02T00:00:00Z)" in done.stdout
        says[serial] = "OLDER THAN ONE SEEN BEFORE: v1 for web-service had serial 9 already" in (
            done.stdout
        )
    assert says == {5: False, 9: False, 7: True}
    other = signed(good_bundle, keys["mine"][0], serial=1, name="another")
    zipped(other, tmp_path / "b.zip")
    assert "OLDER" not in edgeres("verify", "b.zip", cwd=tmp_path).stdout


@pytest.mark.usefixtures("unrun")
def test_without_cryptography_nothing_is_silently_good(
    good_bundle: Files, keys: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped(signed(good_bundle, keys["mine"][0]), tmp_path / "b.zip")
    monkeypatch.setattr(signing, "available", lambda: False)
    done = edgeres("verify", "b.zip", cwd=tmp_path)
    assert done.returncode == 0 and "THE SIGNATURE IS NOT CHECKED" in done.stdout
    assert edgeres("verify", "b.zip", "--require-signature", cwd=tmp_path).returncode == 4
    with pytest.raises(MissingComponent):
        checking.check(tmp_path / "b.zip", keys["mine"][1])
    assert edgeres("trust", keys["mine"][1], cwd=tmp_path).returncode == 0  # a PEM needs no library


def test_names_of_keys(keys: dict, own_config: Path, tmp_path: Path) -> None:
    mine, other = (signing.public_key(keys[name][1]) for name in ("mine", "other"))
    trust.add(mine, "acme", "2026-01-01T00:00:00Z")
    trust.add(mine, "acme inc", "2026-01-02T00:00:00Z")
    assert [(k.name, k.added) for k in trust.load()] == [("acme inc", "2026-01-01T00:00:00Z")]
    for name in ("acme inc", "", " ", "a\nb", "x" * 65, "\x1b[2K"):
        with pytest.raises(BadInput):
            trust.add(other, name, "2026-01-01T00:00:00Z")
    with pytest.raises(BadInput, match="no trusted key has the fingerprint"):
        trust.remove(signing.fingerprint(other))
    assert trust.remove(signing.fingerprint(mine).upper().replace("-", ":")).name == "acme inc"
    for damaged in (b"", b"[]", b'{"schema": 1, "keys": [{}]}', b'{"schema": 2, "keys": []}'):
        (own_config / "trusted_keys.json").write_bytes(damaged)
        with pytest.raises(BadInput, match=r"trusted_keys\.json"):
            trust.load()
    assert edgeres("trust", keys["mine"][1], "--remove", "x", cwd=tmp_path).returncode == 2


def test_the_registry_numbers_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000")
    first = registry.bundle_number(tmp_path, "a", "x" * 64)
    second = registry.bundle_number(tmp_path, "a", "y" * 64)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")  # a clock that went back
    third = registry.bundle_number(tmp_path, "a", "z" * 64)
    assert (first, second, third) == ((1000, 1000), (1001, 1000), (1002, 5))
    assert registry.bundle_number(tmp_path, "a", "x" * 64) == first  # the same bytes again
    assert registry.history(tmp_path) == []  # bundles are no promotions
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(BadInput, match="SOURCE_DATE_EPOCH"):
        registry.bundle_number(tmp_path, "a", "w" * 64)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert registry.bundle_number(tmp_path, "a", "w" * 64)[0] > 1_700_000_000
    (tmp_path / "registry" / "bundles" / "000000000001.json").write_text('{"serial": 1e400}')
    with pytest.raises(BadInput, match=r"000000000001\.json: not an entry"):
        registry.bundle_number(tmp_path, "a", "v" * 64)


@pytest.mark.parametrize("where", [None, "config"])
def test_without_a_home_folder_no_key_is_trusted_and_none_is_kept(
    where: str | None, keys: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.path.expanduser", str)
    if where is None:
        monkeypatch.delenv("XDG_CONFIG_HOME")
    else:  # a relative one is ignored
        monkeypatch.setenv("XDG_CONFIG_HOME", where)
    assert trust.load() == []
    with pytest.raises(BadInput, match="no home folder to keep trusted keys in"):
        trust.add(signing.public_key(keys["mine"][1]), "acme", "2026-01-01T00:00:00Z")
    assert not list(tmp_path.iterdir())


def test_nobody_else_reads_the_keys(keys: dict, own_config: Path) -> None:
    trust.add(signing.public_key(keys["mine"][1]), "acme", "2026-01-01T00:00:00Z")
    kept = list(own_config.rglob("trusted_keys.json"))
    assert [p.stat().st_mode & 0o777 for p in kept] == [0o600]


def test_a_pipe_in_place_of_a_key_is_not_waited_for(own_config: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key.pem")
    for read in (signing.public_key, signing.private_key):
        with pytest.raises(BadInput, match="is a pipe"):
            read(tmp_path / "key.pem")
    own_config.mkdir(parents=True, exist_ok=True)
    os.mkfifo(trust._folder() / "trusted_keys.json")
    with pytest.raises(BadInput, match="is a pipe"):
        trust.load()
