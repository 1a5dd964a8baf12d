"""Errors that a person can act on, and the exit codes by which a parent process tells them apart.

Every message says what is wrong, where, and what to do. A command's `main` prints it as one line and exits with
`exit_code`; any other exception is a defect and keeps its traceback. Messages mask the secrets of URIs.
"""

import os
import sys
from collections.abc import Callable

from contract.masking import masked
from contract.printable import printable

EXIT_FAILED = 1
EXIT_BAD_INPUT = 65  # sysexits EX_DATAERR: the input is unusable, a retry changes nothing
EXIT_INTERRUPTED = 75  # sysexits EX_TEMPFAIL: stopped after committing progress, a retry resumes
EXIT_BAD_RECIPE = 78  # sysexits EX_CONFIG: the recipe is wrong, a retry changes nothing


def _line(text: str) -> str:
    """The text as one line without control characters, whatever it quotes."""
    return printable(" ".join(filter(None, map(str.strip, text.split("\n")))))


class GristmillError(Exception):
    """The base of every error that is reported as one line instead of a traceback."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str = "") -> None:
        super().__init__(_line(masked(message)))


class RecipeError(GristmillError):
    """The recipe or an override is wrong; the message names the key and what is allowed."""

    exit_code = EXIT_BAD_RECIPE


class SetupError(GristmillError):
    """The machine lacks something that the recipe's settings need; the message says what to install or change."""

    exit_code = EXIT_BAD_RECIPE


def not_installed(error: ModuleNotFoundError, extra: str) -> SetupError:
    """A plane's library that this machine lacks. `extra` is the one of pyproject.toml that installs the plane's."""
    return SetupError(f'the library {error.name} is not installed; in Gristmill\'s checkout: pip install ".[{extra}]"')


class InputError(GristmillError):
    """Input data is missing, empty or of the wrong kind."""

    exit_code = EXIT_BAD_INPUT


class StoreError(GristmillError):
    """The store cannot be reached, is full, or refuses the credentials. A retry may succeed."""


class DamagedError(StoreError):
    """A committed file or a manifest is gone or does not hold what was written.

    A file that cannot be read for another reason raises StoreError itself.
    """


class NotReadyError(GristmillError):
    """An input's manifest does not exist yet; the message names the stage to run first."""

    exit_code = EXIT_BAD_INPUT


class Interrupted(GristmillError):
    """Stopped on request after everything finished so far was committed."""

    exit_code = EXIT_INTERRUPTED


def exit_code_of(work: Callable[[], object]) -> int:
    """Do what a command was asked for, and return its exit code. A GristmillError becomes one line on standard error.

    A reader that ends early, as `| head` does, is no error.
    """
    try:
        work()
        sys.stdout.flush()  # here, so that a closed pipe is caught below
    except GristmillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
