"""Published weights: fetched once over TLS, bounded in size, checked against their hash, kept."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPMessage, HTTPResponse
from ipaddress import ip_address
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from edgeres.disk import cache_folder, storage_errors
from edgeres.errors import EdgeresError

MAX_BYTES = 2 << 30
_CHUNK = 1 << 20
_TIMEOUT_S = 30


class DownloadFailed(EdgeresError):
    """Something published could not be fetched."""


def cache() -> Path:
    """Where downloads are kept: EDGERES_CACHE, or `edgeres` in the user's cache folder."""
    if own := os.environ.get("EDGERES_CACHE"):
        return Path(own)
    return cache_folder()


def fetched(url: str, name: str, sha256: str | None = None, max_bytes: int = MAX_BYTES) -> Path:
    """A file of the cache, fetched if it isn't there.

    Args:
        name: below the cache folder.
        sha256: its hash (hex) or the hash's beginning; None: what the server states as the hash of
            a Hugging Face file, which is kept beside the file.

    Raises:
        DownloadFailed: no connection, a server's refusal, too large, or another file than was
            published.
    """
    path = cache() / name
    note = path.with_name(path.name + ".sha256")
    if path.is_file():
        known = sha256 or (note.read_text("ascii") if note.is_file() else None)
        if known and _sha256(path).startswith(known):
            return path
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            stated = _stream(url, partial, max_bytes)
            expected = sha256 or stated
            if not expected:
                raise DownloadFailed(f"{url}: the server states no SHA-256, so it can't be checked")
            actual = _sha256(partial)
            if not actual.startswith(expected):
                raise DownloadFailed(
                    f"{url}: is not the file that was published (SHA-256 {actual[:16]}…, not "
                    f"{expected[:16]}…); try again, or on another network"
                )
            note.write_text(actual, "ascii")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return path


def document(url: str, max_bytes: int = 1 << 20) -> dict[str, object]:
    """A small JSON document; raises DownloadFailed."""
    response = _opened(url)
    with response:
        content = response.read(max_bytes + 1)
    try:
        found = json.loads(content[:max_bytes])
    except ValueError as error:
        raise DownloadFailed(f"{url}: is no JSON document") from error
    return found if isinstance(found, dict) else {}


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to TLS only, and remembers the hash that Hugging Face states before it redirects."""

    def __init__(self) -> None:
        self.stated: str | None = None

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: HTTPMessage, newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        """Note the hash, then go on if the new place is as safe."""
        self.stated = self.stated or _stated(headers)
        _require_tls(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _stream(url: str, path: Path, max_bytes: int) -> str | None:
    redirects = _Redirects()
    with _opened(url, redirects) as response, path.open("wb") as file:
        length = int(response.headers.get("Content-Length") or 0)
        total = 0
        while length <= max_bytes and (chunk := response.read(_CHUNK)):
            total += len(chunk)
            if total > max_bytes:
                break
            file.write(chunk)
        if max(length, total) > max_bytes:
            raise DownloadFailed(f"{url}: is larger than {max_bytes >> 20:,} MiB; not fetched")
        return redirects.stated or _stated(response.headers)


def _opened(url: str, redirects: _Redirects | None = None) -> HTTPResponse:
    _require_tls(url)
    opener = urllib.request.build_opener(redirects or _Redirects())
    request = urllib.request.Request(url, headers={"User-Agent": "edgeres"})
    try:
        return opener.open(request, timeout=_TIMEOUT_S)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadFailed(f"{url}: can't be fetched ({reason}); check the name and the "
                             "connection, or use checkpoint:FILE") from error  # fmt: skip


def _stated(headers: Message) -> str | None:
    """The SHA-256 of a large file, which the hub gives as the tag of what it links to."""
    tag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").strip('W/"').lower()
    return tag if len(tag) == 64 and set(tag) <= set("0123456789abcdef") else None


def _require_tls(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_here(parts.hostname or "")):
        raise DownloadFailed(f"{url}: only https is fetched from")


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()
