"""What the system refuses a command, as a sentence with its mend."""

from __future__ import annotations

import errno
import re

EXIT_CODE = 2
_BY_NUMBER = {
    errno.ENOSPC: "no space left on the device; free some (`edgeres clean`) and repeat",
    errno.EDQUOT: "the disk quota is used up; free some (`edgeres clean`) and repeat",
    errno.EFBIG: "the file would be larger than this shell allows (`ulimit -f`); raise the limit",
    errno.EMFILE: "too many open files; raise the limit (`ulimit -n`) and repeat",
    errno.ENFILE: "too many open files on this machine; end other programs and repeat",
    errno.EIO: "the disk can't be read or written (input/output error)",
    errno.EROFS: "the file system is read-only; choose another folder",
}
_MEMORY = "there is not enough memory; end other programs, raise the limit (`ulimit -v`), or take \
a smaller batch or smaller images"
# What libraries say of it, that have no errno to tell.
_SAID = (
    (r"can't allocate memory|[Cc]annot allocate memory|bad_alloc|[Oo]ut of memory|unable to mmap|"
     r"failed to map segment|DefaultCPUAllocator|thread constructor failed", _MEMORY),
    (r"File too large|os error 27\b", _BY_NUMBER[errno.EFBIG]),
    (r"No space left|os error 28\b", _BY_NUMBER[errno.ENOSPC]),
)  # fmt: skip


def sentence(error: BaseException) -> str | None:
    """What was refused, also where a library raised something of its own; None if nothing was."""
    cause: BaseException | None = error
    for _ in range(10):
        if cause is None:
            break
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None) == errno.ENOMEM:
            return _MEMORY
        if isinstance(cause, OSError) and cause.errno in _BY_NUMBER:
            where = f"{cause.filename}: " if cause.filename else ""
            return f"{where}{_BY_NUMBER[cause.errno]}"
        if isinstance(cause, SystemError) and _memory_is_limited():
            return _MEMORY  # "error return without exception set", of a library half loaded
        for pattern, said in _SAID:
            if re.search(pattern, str(cause)):
                return said
        cause = cause.__cause__ or cause.__context__
    return None


def _memory_is_limited() -> bool:
    try:
        import resource
    except ImportError:  # there isn't even the memory for it
        return True
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
