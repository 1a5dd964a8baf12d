"""Private folders and files with predictable names: in a shared /tmp another user may have created them first."""

import os
import stat
from contextlib import suppress
from pathlib import Path

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


def open_private(path: str, flags: int) -> int:
    """An opener for `open`: a new file is readable and writable by this user only, and links are never followed."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
