"""Private folders and locks with predictable names: in a shared /tmp another user may have created them first."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from contract.errors import SetupError


def private_folder(path: Path) -> Path:
    """Return the path of a folder that only this user may write, and make it and its parents if they are missing.

    Raises SetupError if the path is a link or not a folder, belongs to another user, or others may write in it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode):
        wrong = "is no folder of its own"
    elif info.st_uid != os.getuid():
        wrong = f"belongs to user {info.st_uid}"
    elif info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        wrong = "can be written by others"
    else:
        return path
    raise SetupError(
        f"{path}: {wrong}, so what lies in it cannot be trusted; remove it, or name another place in TMPDIR"
    )


def private_lock(path: Path, timeout: float = -1) -> FileLock:
    """A lock that one process holds at a time, and that ends with it; the file stays.

    Use it as a context, which waits for `timeout` seconds, without end if negative, and then raises filelock.Timeout.
    Raises OSError if the path is a link or another user's file, or if the file system has no locks.
    """

    def check(descriptor: int) -> None:
        if (owner := os.fstat(descriptor).st_uid) != os.getuid():
            raise PermissionError(errno.EPERM, f"belongs to user {owner}", str(path))

    return FileLock(path, timeout, 0o600, fallback_to_soft=False, on_acquired=check)
