"""The device side of the adb protocol, over TCP: what a phone's adbd does for shell and sync.

In: a root folder, and the command line that runs a shell in it. Out: a server that the genuine adb
client takes for a phone. Switches make it misbehave. A program whose connection ends runs on, as it
may on a phone: ending it is the client's business.

Packets: six little-endian words (command, two arguments, length, checksum, inverted command), then
the data; one WRTE is in flight per stream. Shell v2: kind, length, data. Sync: a word, a length.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import random
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_VERSION, _MAX_DATA = 0x01000001, 1 << 20
_CNXN, _AUTH, _OPEN, _OKAY, _CLSE, _WRTE = struct.unpack("<6I", b"CNXNAUTHOPENOKAYCLSEWRTE")
SHELL_USER = 2000


def inside(root: Path, path: str) -> Path:
    """A phone's path below `root`, where neither `..` nor a link leads out."""
    todo, here, links = path.split("/")[::-1], [], 0
    while todo:
        part = todo.pop()
        if part == "..":
            here = here[:-1]
        elif part not in ("", "."):
            found = root.joinpath(*here, part)
            if not found.is_symlink():
                here.append(part)
                continue
            links += 1
            if links > 20:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = str(found.readlink())
            here = [] if target.startswith("/") else here
            todo.extend(target.split("/")[::-1])
    return root.joinpath(*here)


class Adbd:
    """A phone's daemon, in a thread of its own.

    Attributes:
        authorized: False: it goes on asking for a key that it knows.
        mute: it takes a connection and doesn't greet.
        silent: it accepts services and answers nothing.
        garbage: what a shell prints is random bytes that follow no protocol.
        capacity: bytes that a file may have before the phone is full.
        cut_during: a command with this text in it loses the connection a moment after its start.
        services: what was asked for.
    """

    def __init__(self, root: Path, shell: Sequence[str], features: str = "shell_v2,cmd") -> None:
        self.root, self.shell = root, list(shell)
        self.banner = f"device::ro.product.name=arm;ro.product.model=ARM_Phone;features={features}"
        self.authorized, self.mute, self.silent, self.garbage = True, False, False, False
        self.capacity: int | None = None
        self.cut_during: str | None = None
        self.v2 = "shell_v2" in features
        self.services: list[str] = []
        self.programs: list[asyncio.subprocess.Process] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._now(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Pull the cable; whoever connects again is welcome."""
        self._now(self._cut())

    def stop(self) -> None:
        """End the daemon, and with it what waits for a program's output."""
        self._server.close()
        self.cut()
        self._now(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _now(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for program in self.programs:
            program._transport.close()  # type: ignore[attr-defined]

    async def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await _Connection(self, reader, writer).run()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


class _Connection:
    def __init__(
        self, adbd: Adbd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.adbd, self.reader, self.writer = adbd, reader, writer
        self.streams: dict[int, _Stream] = {}
        self.ids, self.max_data = itertools.count(1), 4096
        self.tasks: set[asyncio.Task[None]] = set()

    async def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        inverted = command ^ 0xFFFFFFFF
        head = struct.pack("<6I", command, first, second, len(data), sum(data), inverted)
        self.writer.write(head + data)
        await self.writer.drain()

    async def run(self) -> None:
        while True:
            head = struct.unpack("<6I", await self.reader.readexactly(24))
            command, first, second, size = head[:4]
            if head[5] != command ^ 0xFFFFFFFF or size > _MAX_DATA:
                return
            data = await self.reader.readexactly(size)
            if command == _CNXN and not self.adbd.mute:
                self.max_data = min(_MAX_DATA, second)
                if self.adbd.authorized:
                    await self.send(_CNXN, _VERSION, _MAX_DATA, self.adbd.banner.encode())
                else:
                    await self.send(_AUTH, 1, 0, random.randbytes(20))
            elif command == _AUTH and first == 2:  # a signature of a key that isn't known
                await self.send(_AUTH, 1, 0, random.randbytes(20))
            elif command == _OPEN:
                stream = _Stream(self, next(self.ids), first)
                self.streams[stream.local] = stream
                task = asyncio.create_task(self._serve(stream, data.rstrip(b"\0").decode()))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            elif second in self.streams:
                await self.streams[second].take(command, data)

    async def _serve(self, stream: _Stream, service: str) -> None:
        self.adbd.services.append(service)
        kind, _, rest = service.partition(":")
        known = {"shell": _shell, "exec": _shell, "sync": _sync}.get(kind.split(",")[0])
        if known is None:
            await self.send(_CLSE, 0, stream.remote)
            return
        with contextlib.suppress(EOFError, ConnectionError):
            await self.send(_OKAY, stream.local, stream.remote)
            if self.adbd.silent:
                await stream.read(1 << 30)
            await known(self.adbd, stream, "v2" in kind, rest)
            await stream.close()


class _Stream:
    def __init__(self, connection: _Connection, local: int, remote: int) -> None:
        self.connection, self.local, self.remote = connection, local, remote
        self.received = asyncio.StreamReader()
        self.ready = asyncio.Event()
        self.ready.set()
        self.closed = False

    async def take(self, command: int, data: bytes) -> None:
        if command == _OKAY:
            self.ready.set()
        elif command == _WRTE:
            self.received.feed_data(data)
            await self.connection.send(_OKAY, self.local, self.remote)
        elif command == _CLSE:  # has to be answered, or some clients wait
            await self.close()
            self.ready.set()
            self.received.feed_eof()

    async def write(self, data: bytes) -> None:
        for i in range(0, len(data), self.connection.max_data):
            await self.ready.wait()
            if self.closed:
                raise EOFError
            self.ready.clear()
            block = data[i : i + self.connection.max_data]
            await self.connection.send(_WRTE, self.local, self.remote, block)
        await self.ready.wait()

    async def read(self, size: int) -> bytes:
        return await self.received.readexactly(size)

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            await self.connection.send(_CLSE, self.local, self.remote)
        self.connection.streams.pop(self.local, None)


async def _shell(adbd: Adbd, stream: _Stream, v2: bool, command: str) -> None:
    if adbd.garbage:
        await stream.write(random.Random(0).randbytes(4096))
        return
    process = await asyncio.create_subprocess_exec(
        *adbd.shell, command,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if v2 else asyncio.subprocess.STDOUT,
    )  # fmt: skip
    adbd.programs.append(process)
    lock = asyncio.Lock()

    async def pump(pipe: asyncio.StreamReader, kind: int) -> None:
        while data := await pipe.read(16384):
            async with lock:
                await stream.write(struct.pack("<BI", kind, len(data)) + data if v2 else data)

    if adbd.cut_during and adbd.cut_during in command:
        adbd.cut_during = None
        asyncio.get_running_loop().call_later(1.0, lambda: [
            w.transport.abort() for w in list(adbd._writers)])  # fmt: skip
    assert process.stdout
    await asyncio.gather(
        pump(process.stdout, 1), *([pump(process.stderr, 2)] if process.stderr else [])
    )
    status = await process.wait()
    if v2:
        await stream.write(struct.pack("<BIB", 3, 1, status % 256))


async def _sync(adbd: Adbd, stream: _Stream, _v2: bool, _rest: str) -> None:
    while True:
        word, size = struct.unpack("<4sI", await stream.read(8))
        path = (await stream.read(size)).decode()
        if word == b"QUIT":
            return
        try:
            if word == b"SEND":
                await _take(adbd, stream, path)
            elif word == b"RECV":
                await _give(inside(adbd.root, path), stream)
            elif word == b"STAT":
                found = os.lstat(inside(adbd.root, path))
                facts = (found.st_mode, found.st_size, int(found.st_mtime))
                await stream.write(b"STAT" + struct.pack("<3I", *facts))
            else:
                raise OSError(errno.EINVAL, "unknown request")
        except OSError as error:
            said = (error.strerror or "failed").encode()
            await stream.write(struct.pack("<4sI", b"FAIL", len(said)) + said)
            return


async def _give(path: Path, stream: _Stream) -> None:
    data = path.read_bytes()
    for i in range(0, len(data), 65536):
        block = data[i : i + 65536]
        await stream.write(struct.pack("<4sI", b"DATA", len(block)) + block)
    await stream.write(struct.pack("<4sI", b"DONE", 0))


async def _take(adbd: Adbd, stream: _Stream, request: str) -> None:
    """Read all of the file before the answer, as adbd does, even if it can't be kept."""
    name, _, mode = request.rpartition(",")
    data = bytearray()
    while True:
        word, size = struct.unpack("<4sI", await stream.read(8))
        if word == b"DONE":
            break
        data += await stream.read(size)
    path = inside(adbd.root, name)
    folder = path.parent.stat()
    owned = folder.st_uid == SHELL_USER and folder.st_mode & 0o200
    if not owned and not folder.st_mode & 0o002:
        raise PermissionError(errno.EACCES, "couldn't create file: Permission denied")
    if adbd.capacity is not None and len(data) > adbd.capacity:
        raise OSError(errno.ENOSPC, "write failed: No space left on device")
    path.write_bytes(data)
    path.chmod(int(mode) & 0o777)
    os.chown(path, SHELL_USER, SHELL_USER)
    await stream.write(struct.pack("<4sI", b"OKAY", 0))
