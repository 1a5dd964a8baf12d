"""Which recipes forms offer, and what a name stands for."""

from pathlib import Path

import pytest

from contract import offered
from contract.errors import RecipeError
from contract.offered import recipe_names, recipe_uri


def test_a_recipe_is_found_by_name_and_taken_as_it_is_by_path() -> None:
    assert recipe_uri("tiny") == str(offered.RECIPES / "tiny.yaml")
    for path in ("/somewhere/mine.yaml", "s3://bucket/mine.yaml", "mine.yaml"):
        assert recipe_uri(path) == path
    with pytest.raises(RecipeError, match=r"recipe 'smal': no such file in .*; there are .*tiny"):
        recipe_uri("smal")


def test_a_path_without_an_ending_is_a_path() -> None:
    assert recipe_uri("folder/mine") == "folder/mine"
    assert recipe_uri("s3://bucket/mine") == "s3://bucket/mine"


def test_the_files_of_the_folder_and_the_default_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offered, "RECIPES", tmp_path)
    monkeypatch.setattr(offered, "DEFAULT_RECIPE", "/home/me/mine.yaml")
    for name in ("b.yaml", "a.yaml", "notes.txt"):
        (tmp_path / name).touch()
    assert recipe_names() == ["a", "b"]
    assert offered.offered() == ["/home/me/mine.yaml", "a", "b"]


def test_a_deployments_folder_takes_the_place_of_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "prose.yaml").touch()
    file = tmp_path / "deployment.yaml"
    file.write_text(f"store: {tmp_path}/store\nrecipes: {tmp_path}/recipes\n")
    file.chmod(0o600)
    monkeypatch.setenv("GRISTMILL_DEPLOYMENT", str(file))
    assert recipe_names() == ["prose"]
    assert recipe_uri("prose") == str(tmp_path / "recipes" / "prose.yaml")
    with pytest.raises(RecipeError, match="there are prose"):
        recipe_uri("tiny")
