"""A folder at a guessable name is taken only where nobody else can have put anything into it."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.errors import SetupError
from contract.private import open_private, private_folder


def test_a_folder_is_made_for_this_user_alone_and_taken_again(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert made == tmp_path / "a" / "b"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    (made / "x").touch()
    assert private_folder(made) == made
    assert (made / "x").exists()


def writable(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


def linked(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (writable, "can be written by others"),
        (linked, "is no folder of its own"),
        (Path.touch, "is no folder of its own"),
        (lambda path: path.symlink_to("/nowhere"), "is no folder of its own"),
    ],
)
def test_what_a_stranger_may_have_put_there_is_refused(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    make(tmp_path / "taken")
    with pytest.raises(
        SetupError, match=rf"^{tmp_path}/taken: {why}, so what lies in it cannot be trusted; remove it, or"
    ):
        private_folder(tmp_path / "taken")


def test_another_users_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private_folder(tmp_path / "taken")
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(SetupError, match=rf"taken: belongs to user {tmp_path.stat().st_uid}, so"):
        private_folder(tmp_path / "taken")


def test_no_file_is_opened_through_a_link(tmp_path: Path) -> None:
    with open(tmp_path / "own", "w", opener=open_private) as file:
        file.write("mine")
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "own")
    for mode in ("r", "w", "r+"):
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            open(tmp_path / "link", mode, opener=open_private)  # noqa: SIM115 - it is never opened
    assert (tmp_path / "own").read_text() == "mine"
