"""Where recipes and DAGs lie: in a checkout, and beside the packages of an installed wheel."""

from pathlib import Path

import pytest

from contract import shipped

ROOT = Path(__file__).parents[2]


def test_a_checkout_has_them_in_its_root() -> None:
    assert shipped.shipped("recipes") == ROOT / "recipes"
    assert (shipped.shipped("dags") / "corpus.py").is_file()


def test_a_wheel_has_them_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gristmill" / "dags").mkdir(parents=True)
    (tmp_path / "dags").mkdir()  # another package's
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "contract" / "shipped.py"))
    assert shipped.shipped("dags") == tmp_path / "gristmill" / "dags"
