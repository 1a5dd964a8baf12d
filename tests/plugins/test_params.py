"""What a run asks for, from the form, the partition key and asset events."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError, RecipeError
from gristmill_airflow import params
from gristmill_airflow.params import Request, crawl_of, fulfil, read_request, recipe_uri, run_name, stage_params

FORM = {"recipe": "tiny", "snapshot": None, "overrides": ["filter.min_words=40", "  ", " ppo.steps=2 "], "run": None}


def test_the_form_alone():
    assert read_request(FORM, None, []) == Request(None, "tiny", ("filter.min_words=40", "ppo.steps=2"), None)


def test_an_emptied_form_is_no_error():
    assert read_request({**FORM, "snapshot": "", "overrides": None, "run": ""}, None, []) == Request(
        None, "tiny", (), None
    )


def test_the_partition_key_names_the_crawl():
    assert read_request(FORM, "CC-MAIN-2024-10", []).snapshot == "CC-MAIN-2024-10"


def test_form_and_partition_key_must_agree():
    agreeing = read_request({**FORM, "snapshot": "CC-MAIN-2024-10"}, "CC-MAIN-2024-10", [])
    assert agreeing.snapshot == "CC-MAIN-2024-10"
    with pytest.raises(RecipeError, match="CC-MAIN-2024-18: the run's partition key is CC-MAIN-2024-10"):
        read_request({**FORM, "snapshot": "CC-MAIN-2024-18"}, "CC-MAIN-2024-10", [])


def test_the_newest_event_of_a_stage_brings_its_run():
    events = [{"recipe": "old", "manifest": "m"}, None, {"recipe": "new", "manifest": "m"}]
    assert read_request(FORM, "CC-MAIN-2024-10", events).run == "new"


def test_the_event_of_a_new_crawl_brings_recipe_and_overrides():
    request = read_request(FORM, "CC-MAIN-2024-10", [{"recipe_name": "base", "overrides": ["ppo.steps=7"]}])
    assert request == Request(None, "base", ("ppo.steps=7",), "CC-MAIN-2024-10")


def test_a_recipe_is_found_by_name_and_taken_as_it_is_by_path():
    assert recipe_uri("tiny") == str(params.RECIPES / "tiny.yaml")
    for path in ("/somewhere/mine.yaml", "s3://bucket/mine.yaml", "mine.yaml"):
        assert recipe_uri(path) == path
    with pytest.raises(RecipeError, match=r"recipe 'smal': no such file in .*; there are .*tiny"):
        recipe_uri("smal")


@given(st.text(min_size=1))
def test_a_run_name_is_a_safe_folder_name(name):
    assert re.fullmatch(r"[A-Za-z0-9._-]*", run_name(name))
    assert run_name(run_name(name)) == run_name(name)


def test_resolving_twice_under_one_name_gives_one_run(tmp_path):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")
    (tmp_path / "mine.yaml").write_text(f"store: {tmp_path}/store\ncrawl: {{source: {tmp_path}/crawl}}\n")
    request = Request(None, str(tmp_path / "mine.yaml"), ("filter.min_words=3",), None)
    run = fulfil(request, "corpus.manual__2026-11-20T14:00:00+00:00")
    assert run.uri.endswith("/store/runs/corpus.manual__2026-11-20T14-00-00-00-00/recipe.yaml")
    assert run.recipe.filter.min_words == 3
    assert fulfil(request, "corpus.manual__2026-11-20T14:00:00+00:00") == run
    assert fulfil(Request(run.uri, "ignored", (), None), "other").uri == run.uri
    key = run.segments[0].snapshot
    assert crawl_of(run) == key
    assert fulfil(Request(run.uri, "ignored", (), key), "other").uri == run.uri
    with pytest.raises(RecipeError, match=f"snapshot CC-MAIN-2024-10: the recipe .* runs as {key}"):
        fulfil(Request(run.uri, "ignored", (), "CC-MAIN-2024-10"), "other")
    with pytest.raises(InputError, match="a name ends in year and ISO week"):
        fulfil(Request(None, request.recipe, (), "yesterday"), "third")


def test_a_recipes_own_crawls_are_never_replaced(tmp_path, monkeypatch):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"store: {tmp_path}/store\nsnapshots: [CC-MAIN-2024-18, CC-MAIN-2024-10]\n")
    asked = []
    monkeypatch.setattr(params, "resolve", lambda uri, name, overrides, snapshots: asked.append(snapshots))
    fulfil(Request(None, str(recipe), (), "CC-MAIN-2024-18"), "one")
    fulfil(Request(None, str(recipe), (), None), "two")
    fulfil(Request(None, str(recipe), ("snapshots=[]",), "CC-MAIN-2023-50"), "three")
    assert asked == [[], [], ["CC-MAIN-2023-50"]]
    with pytest.raises(
        RecipeError, match=r"^snapshot CC-MAIN-2024-10: .* runs as CC-MAIN-2024-18; leave `snapshots` empty"
    ):
        fulfil(Request(None, str(recipe), (), "CC-MAIN-2024-10"), "four")


def test_a_resolved_run_takes_nothing_else_from_the_form():
    with pytest.raises(RecipeError, match=r"^overrides: the resolved run u is as it is; leave overrides empty"):
        read_request({**FORM, "run": "u"}, None, [])
    with pytest.raises(RecipeError, match=r"^snapshot: the resolved run u is as it is"):
        read_request({**FORM, "overrides": [], "snapshot": "CC-MAIN-2024-10", "run": "u"}, None, [])
    assert read_request({**FORM, "overrides": [], "run": "u"}, None, []).run == "u"
    assert read_request({**FORM, "run": "u"}, None, [{"recipe": "of the event"}]).run == "of the event"


def test_the_form_is_short_and_every_field_explains_itself():
    form = stage_params()
    assert list(form) == ["recipe", "snapshot", "overrides", "run"]
    for field in form.values():
        assert field.schema["title"]
        assert 0 < len(field.schema["description_md"]) < 100
        field.resolve()  # the default passes the form's own check
