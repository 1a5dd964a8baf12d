"""The sandbox, which machines may lack: there its tests are skipped, but not where GRISTMILL_REQUIRE_SANDBOX says that they must run."""

import os

import pytest

from contract.errors import SetupError
from evals import sandbox


def _why_not() -> str:
    try:
        sandbox.require()
    except SetupError as error:
        return str(error)
    return ""


WHY_NOT = _why_not()
needs_sandbox = pytest.mark.skipif(
    bool(WHY_NOT) and not os.environ.get("GRISTMILL_REQUIRE_SANDBOX"), reason=WHY_NOT or "the sandbox is here"
)
