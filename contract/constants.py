"""What decides results besides settings and inputs: values in the code that several stages share.

A stage names those that it uses in the stage table, and they become part of its fingerprint: a change here makes stale
what was made with the old value.
"""

from dataclasses import asdict
from typing import Any

from contract.chat import CHAT_FORMAT, SPECIAL_TOKENS
from contract.settings.corpus import LANGUAGE_MODEL

CONSTANTS: dict[str, Any] = {
    "language_model": LANGUAGE_MODEL,
    "special_tokens": dict(SPECIAL_TOKENS),
    "chat_format": {role: asdict(frame) for role, frame in CHAT_FORMAT.items()},
}
