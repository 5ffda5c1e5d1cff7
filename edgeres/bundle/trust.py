"""Whose keys are trusted: a file in the user's own folder, with what was last seen of each.

Trust on first use: the first time, a person compares a fingerprint with what the signer says;
from then on, the same key is known by its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeres.bundle import signing
from edgeres.bundle.documents import MOST_BYTES, Name, Serial, Time, parsed
from edgeres.disk import config_folder, read_bounded, storage_errors, write_whole
from edgeres.errors import BadInput

_NAME = "trusted_keys.json"
_MOST = 100  # keys, and lines of bundles for each


@dataclass(frozen=True)
class Trusted:
    """A key that is trusted.

    Attributes:
        key: DER; added: when, in UTC.
        seen: what a bundle is a version of, and for -> the largest serial that was seen.
    """

    name: str
    key: bytes
    added: str
    seen: dict[str, int] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Of the key."""
        return signing.fingerprint(self.key)


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name
    key: Name
    added: Time
    seen: Annotated[dict[Name, Serial], Field(max_length=_MOST)]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = Field(alias="schema")
    keys: Annotated[list[_Key], Field(max_length=_MOST)]


def load() -> list[Trusted]:
    """Every key that is trusted, the oldest first; none without a home folder.

    Raises:
        BadInput: the file of keys is damaged or can't be read.
    """
    folder = config_folder()
    if folder is None or not os.path.lexists(folder / _NAME):
        return []
    path = folder / _NAME
    stored = parsed(_Keys, read_bounded(path, MOST_BYTES, "file of keys"), str(path)).keys
    return [Trusted(k.name, signing.decoded(k.key, str(path)), k.added, k.seen) for k in stored]


def known(key: bytes) -> Trusted | None:
    """A key's entry, if it is trusted."""
    return next((k for k in load() if k.key == key), None)


def add(key: bytes, name: str, now: str) -> Trusted:
    """Trust a key from now on; a key that is there already gets the name.

    Raises:
        BadInput: the name is another key's, or no name.
    """
    if not (name.strip() and name.isprintable() and len(name) <= 64):
        raise BadInput("a key's name has 1 to 64 letters, digits and the like; give one by --name")
    with _alone():
        before = load()
        if any(k.name == name and k.key != key for k in before):
            raise BadInput(f"the name '{name}' is another key's; choose one by --name, or take the "
                           "other key out by --remove")  # fmt: skip
        old = next((k for k in before if k.key == key), None)
        trusted = replace(old, name=name) if old else Trusted(name, key, now)
        if len(before) == _MOST and not old:
            raise BadInput(
                f"{_folder() / _NAME}: has {_MOST} keys already; take some out by --remove"
            )
        _write([*(k for k in before if k.key != key), trusted])
    return trusted


def remove(fingerprint: str) -> Trusted:
    """Don't trust a key any more.

    Raises:
        BadInput: no key has this fingerprint.
    """
    digits = "".join(c for c in fingerprint.lower() if c not in "-: ")
    with _alone():
        before = load()
        found = next((k for k in before if k.fingerprint.replace("-", "") == digits), None)
        if found is None:
            raise BadInput(f"no trusted key has the fingerprint {fingerprint[:100]!r}; "
                           "edgeres trust lists them")  # fmt: skip
        _write([k for k in before if k != found])
    return found


def note(key: bytes, line: str, serial: int) -> int:
    """Remember that a bundle of a line was seen; returns the largest serial seen so far of it.

    Args:
        line: what it is a version of, and for.
    """
    with _alone():
        before = load()
        found = next((k for k in before if k.key == key), None)
        if found is None:
            return serial
        largest = max(found.seen.get(line, 0), serial)
        if largest != found.seen.get(line):
            seen = dict([*found.seen.items(), (line, largest)][-_MOST:])
            _write([replace(k, seen=seen) if k is found else k for k in before])
    return largest


def _folder() -> Path:
    folder = config_folder()
    if folder is None:
        raise BadInput("there is no home folder to keep trusted keys in; set XDG_CONFIG_HOME to a "
                       "folder of yours")  # fmt: skip
    return folder


@contextmanager
def _alone() -> Iterator[None]:
    """Be the only one who writes."""
    import fcntl

    folder = _folder()
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / ".trusted_keys.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(trusted: list[Trusted]) -> None:
    """The whole file or nothing of it, and nobody else's to read."""
    rows = [{"name": k.name, "key": signing.encoded(k.key), "added": k.added, "seen": k.seen}
            for k in trusted]  # fmt: skip
    path = _folder() / _NAME
    with storage_errors(path):
        write_whole(path, json.dumps({"schema": 1, "keys": rows}, indent=1), mode=0o600)
