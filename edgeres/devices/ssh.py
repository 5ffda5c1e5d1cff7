"""A board that ssh reaches. In: a profile of kind ssh. Out: a Device over one connection.

It needs a POSIX shell there, and what the runners ask for. Files are staged in a folder per
connection, which the board itself removes when the connection ends, in whichever way it does.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from edgeres.devices import Completed, DeviceProfile, Setting
from edgeres.devices._base import Base, settings
from edgeres.devices._events import last_line
from edgeres.devices._process import Process
from edgeres.devices._ssh_link import Address, Link, resolved
from edgeres.errors import BadInput, DeviceError

WHERE = "host"
SETTINGS = {
    "host": Setting(str, starts_programs=False),
    "user": Setting(str, starts_programs=False),
    "port": Setting(int, starts_programs=False),
    "identity": Setting(str, starts_programs=True),  # a key is shown to whoever `host` is
    "config": Setting(str, starts_programs=True),  # it may hold a ProxyCommand
    "python": Setting(str, starts_programs=True),
    "workdir": Setting(str, starts_programs=False),
}
# Configurations put both into shell commands (%h, %r); older releases of ssh let anything through.
_NO_ADDRESS = r"^-|[\s\x00-\x1f\x7f'\"`$\\;&<>|(){}*?!]"
_RESTORE_S = 60.0
_SLOWEST_BYTES_S = 50_000.0

# Arguments: the work folder, a name. What a board without power could not remove, a later
# connection does.
_KEEPER = r"""
echo "$0"
trap '' HUP INT TERM PIPE
umask 077
case $1 in "~" | "~/"*) work=$HOME${1#"~"} ;; *) work=$1 ;; esac
mkdir -p "$work" && cd "$work" && mkdir "$2" && cd "$2" || exit 1
find .. -maxdepth 1 -type d -name 'session-????????????????' -mtime +7 \
  -exec rm -rf {} + 2>/dev/null
printf '%s\n' "$HOME" "$(pwd)" "$0"
cat >/dev/null
cd / && rm -rf "$OLDPWD"
"""
# Arguments: a folder, a command line. Killed are: at the end of stdin all of it, and at the end of
# the program what it left running. The shell's own words ("Killed") are kept off its stderr.
_RUN = r"""
echo "$0"; echo "$0" >&2
cd "$1" || exit
shift
export ORT_DISABLE_TELEMETRY=1
exec 3<&0 4>&2
(cat <&3; kill -9 -$$) >/dev/null 2>&1 4>&- &
exec 2>/dev/null
(exec "$@" </dev/null 2>&4 3<&- 4>&-)
echo "$0 $?" >&4
kill -9 -$$
"""
# Arguments: a path, a size. A file has its name when it is whole, or not at all.
_PUSH = r"""
echo "$0"; echo "$0" >&2
cat >"$1.partial" && [ "$(wc -c <"$1.partial")" -eq "$2" ] && mv -f "$1.partial" "$1"
status=$?
[ $status = 0 ] || rm -f "$1.partial"
echo "$0 $status" >&2
"""
_PULL = r"""
echo "$0"; echo "$0" >&2
cat "$1"
echo "$0 $?" >&2
"""
# Then follow the commands; a pipe that nobody reads any more must not stop them.
_GUARD = r"""
echo "$0"
trap '' HUP INT TERM PIPE
echo "$0"
cat >/dev/null
"""


def connect(profile: DeviceProfile) -> SshDevice:
    """Open a board.

    Raises:
        BadInput: a setting is unknown, missing or wrong.
        DeviceError: the board can't be reached, or has no room.
    """
    return SshDevice(profile, **settings(profile, SETTINGS))


def discover() -> list[dict[str, str]]:
    """The hosts that the user's ssh configuration names; patterns are left out."""
    try:
        lines = (Path.home() / ".ssh" / "config").read_text("utf-8", "replace").splitlines()
    except (OSError, RuntimeError):
        return []
    named = (re.match(r"\s*host(?:\s*=\s*|\s+)(.+)", line, re.IGNORECASE) for line in lines)
    hosts = dict.fromkeys(host for match in named if match for host in match[1].split())
    return [{"device": f"board@{host}", "state": "not asked", "about": "host of ~/.ssh/config"}
            for host in hosts if host.isprintable() and not set(host) & set("*?!-\"") - {"-"}
            and not host.startswith("-")]  # fmt: skip


class SshDevice(Base):
    """Implements Device with the system's ssh."""

    def __init__(
        self,
        profile: DeviceProfile,
        host: str = "",
        user: str = "",
        port: int = 0,
        identity: str = "",
        config: str = "",
        python: str = "python3",
        workdir: str = "~/.cache/edgeres",
    ) -> None:
        super().__init__(profile)
        for key, value, refused in (
            ("host", host, _NO_ADDRESS),
            ("user", user, _NO_ADDRESS),
            ("workdir", workdir, r"^-|[\x00-\x1f\x7f]"),
        ):
            if re.search(refused, value):
                raise BadInput(f"device '{self.name}': the setting {key} can't be {value!r}")
        if not host or not python or not workdir:
            raise BadInput(f"device '{self.name}': the settings host, python and workdir need text")
        if not 0 <= port <= 65535:
            raise BadInput(f"device '{self.name}': the setting port must be between 1 and 65535")
        where = Address(host, user, port, identity, config)
        self.address = resolved(self.name, where)
        folder = f"session-{secrets.token_hex(8)}"
        self._link = Link(self.name, where, _KEEPER, workdir, folder)
        home, self._staging = [*self._link.greeting, "", ""][:2]
        if not (home + self._staging).isprintable() or not self._staging.startswith("/"):
            self.close()
            raise DeviceError(f"device '{self.name}': the shell of {host} names no folder")
        self._python = f"{home}{python[1:]}" if python.startswith("~/") else python
        self._pushed: dict[str, str] = {}

    def push(self, local: Path) -> str:
        """Copy a file into the staging folder unless its content is already there."""
        try:
            with local.open("rb") as file:
                digest = hashlib.sha256()
                while block := file.read(1 << 20):
                    digest.update(block)
                size = file.tell()
                file.seek(0)
                plain = re.sub(r"[^A-Za-z0-9._-]", "_", local.name)[-80:]
                name = f"{digest.hexdigest()[:16]}-{plain}"
                if name in self._pushed:
                    return self._pushed[name]
                remote = f"{self._staging}/{name}"
                limit = 60 + size / _SLOWEST_BYTES_S
                done = self._link.perform(_PUSH, remote, str(size), timeout_s=limit, stdin=file)
        except TimeoutError as error:
            raise DeviceError(f"device '{self.name}': {local} did not get there in time") from error
        except OSError as error:
            raise DeviceError(f"device '{self.name}': can't take {local}: {error}") from error
        if done.status:
            said = done.stderr.decode("utf-8", "replace")
            raise self._link.fault(said or f"{local.name} did not arrive whole")
        self._pushed[name] = remote
        return remote

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the board; a relative path starts at the staging folder."""
        path = str(PurePosixPath(self._staging) / remote)
        try:
            done = self._link.perform(_PULL, path, timeout_s=_RESTORE_S * 10)
            if done.status:
                said = last_line(done.stderr.decode("utf-8", "replace"))
                raise DeviceError(f"device '{self.name}': can't give {remote}: {said}")
            partial = local.with_name(local.name + ".partial")
            partial.write_bytes(done.stdout)
            partial.replace(local)
        except TimeoutError as error:
            raise DeviceError(f"device '{self.name}': {remote} did not come in time") from error
        except OSError as error:
            raise DeviceError(f"device '{self.name}': can't write {local}: {error}") from error

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Run a program in the staging folder; at the timeout all that it started is killed.

        As in every shell, a status above 128 is a signal's.
        """
        try:
            done = self._link.perform(_RUN, self._staging, *argv, timeout_s=timeout_s)
        except TimeoutError as error:
            ending = f"; it last said: {error}" if str(error) else " and said nothing"
            raise DeviceError(
                f"device '{self.name}': {PurePosixPath(argv[0]).name} did not finish "
                f"in {timeout_s:g} s{ending}"
            ) from error
        stdout, stderr = (s.decode("utf-8", "replace") for s in (done.stdout, done.stderr))
        if done.status in (126, 127):  # the shell's, for what can't be started
            mend = ""
            if argv[0] == self._python:
                mend = (
                    "; install it there (`sudo apt install python3`), or set `python` to its path"
                )
            raise DeviceError(f"device '{self.name}': can't start {argv[0]}: "
                              f"{last_line(stderr)}{mend}")  # fmt: skip
        signalled = 128 < done.status <= 192
        return Completed(128 - done.status if signalled else done.status, stdout, stderr)

    def python(self) -> tuple[str, ...]:
        """The board's Python."""
        return (self._python,)

    @contextlib.contextmanager
    def held(self, restore: Sequence[Sequence[str]]) -> Iterator[None]:
        """While the block lasts, the board holds commands ready that undo what the block sets.

        The board runs them when the block ends, and also when the connection or this process does.

        Raises:
            DeviceError: one of them failed, or the board can't be asked any more.
        """
        commands = "\n".join(
            f'{shlex.join(command)} </dev/null >/dev/null 2>&1 || echo "$0 {i} $?"'
            for i, command in enumerate(restore)
        )
        guard, _ = self._link.guard(f'{_GUARD}{commands}\necho "$0 done"\n')
        try:
            yield
        except BaseException:
            self._release(guard, restore)
            raise
        fault = self._release(guard, restore)
        if fault:
            raise DeviceError(f"device '{self.name}': {fault}")

    def _release(self, guard: Process, restore: Sequence[Sequence[str]]) -> str | None:
        """Let the board restore; what went wrong, if anything did."""
        guard.end(_RESTORE_S)
        said = guard.stdout.decode("utf-8", "replace")
        failed = re.search(r"^\w+ (\d+) (\d+)$", said, re.MULTILINE)
        if failed and int(failed[1]) < len(restore):
            command = shlex.join(restore[int(failed[1])])
            return f"what was set is not restored: `{command}` ended with exit status {failed[2]}"
        if not re.search(r"^\w+ done$", said, re.MULTILINE):
            return "the connection was lost; the board restores what was set once it notices"
        return None

    def close(self) -> None:
        """Remove the staging folder and end the connection."""
        self._link.close()
