"""What a run asks for, from the form, the partition key and asset events."""

import re
from dataclasses import FrozenInstanceError

import pytest
from airflow.sdk.exceptions import ParamValidationError
from hypothesis import given
from hypothesis import strategies as st

from contract import offered
from contract.digest import split_digest
from contract.errors import InputError, RecipeError
from contract.recipe import Recipe
from gristmill_airflow import params
from gristmill_airflow.params import FORM as FORM_SAYS
from gristmill_airflow.params import (
    HANDED_ON,
    KEPT,
    Request,
    Told,
    crawl_of,
    fulfil,
    poll_params,
    read_request,
    run_name,
    stage_params,
    told,
    uses,
    wanted,
)

FORM = {"recipe": "tiny", "crawl": None, "overrides": ["filter.min_words=40", "  ", " ppo.steps=2 "], "run": None}


def test_the_form_alone():
    assert read_request(FORM, None, []) == Request(None, "tiny", ("filter.min_words=40", "ppo.steps=2"), None)


def test_an_emptied_form_is_no_error():
    assert read_request({**FORM, "crawl": "", "overrides": None, "run": ""}, None, []) == Request(
        None, "tiny", (), None
    )


def test_the_partition_key_names_the_crawl():
    assert read_request(FORM, "CC-MAIN-2024-10", []).crawl == "CC-MAIN-2024-10"


def test_form_and_partition_key_must_agree():
    agreeing = read_request({**FORM, "crawl": "CC-MAIN-2024-10"}, "CC-MAIN-2024-10", [])
    assert agreeing.crawl == "CC-MAIN-2024-10"
    with pytest.raises(RecipeError, match="CC-MAIN-2024-18: the run's partition key is CC-MAIN-2024-10"):
        read_request({**FORM, "crawl": "CC-MAIN-2024-18"}, "CC-MAIN-2024-10", [])


def test_the_newest_event_of_a_stage_brings_its_run():
    events = [{"recipe": "old", "manifest": "m"}, None, {"recipe": "new", "manifest": "m"}]
    assert read_request(FORM, "CC-MAIN-2024-10", events).run == "new"


def test_the_event_of_a_new_crawl_brings_recipe_and_overrides():
    request = read_request(FORM, "CC-MAIN-2024-10", [{"recipe_name": "base", "overrides": ["ppo.steps=7"]}])
    assert request == Request(None, "base", ("ppo.steps=7",), "CC-MAIN-2024-10", KEPT)


@given(st.text(min_size=1))
def test_a_run_name_is_a_safe_folder_name(name):
    assert re.fullmatch(r"[A-Za-z0-9._-]*", run_name(name))
    assert run_name(run_name(name)) == run_name(name)


def fulfilled(request, name):
    return fulfil(request, wanted(request), name)


def test_resolving_twice_under_one_name_gives_one_run(tmp_path):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")
    (tmp_path / "mine.yaml").write_text(f"store: {tmp_path}/store\ncrawl: {{source: {tmp_path}/crawl}}\n")
    request = Request(None, str(tmp_path / "mine.yaml"), ("filter.min_words=3",), None)
    run = fulfilled(request, "corpus.manual__2026-11-20T14:00:00+00:00")
    assert split_digest(run.uri)[0].endswith("/store/runs/corpus.manual__2026-11-20T14-00-00-00-00/recipe.yaml")
    assert run.recipe.filter.min_words == 3
    assert fulfilled(request, "corpus.manual__2026-11-20T14:00:00+00:00") == run
    assert fulfilled(Request(run.uri, "ignored", (), None), "other").uri == run.uri
    key = run.segments[0].snapshot
    assert crawl_of(run) == key
    assert fulfilled(Request(run.uri, "ignored", (), key), "other").uri == run.uri
    with pytest.raises(RecipeError, match=f"crawl CC-MAIN-2024-10: the recipe .* runs as {key}"):
        fulfilled(Request(run.uri, "ignored", (), "CC-MAIN-2024-10"), "other")
    with pytest.raises(InputError, match="a name ends in year and ISO week"):
        fulfilled(Request(None, request.recipe, (), "yesterday"), "third")


def test_a_recipes_own_crawls_are_never_replaced(tmp_path, monkeypatch):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"store: {tmp_path}/store\nsnapshots: [CC-MAIN-2024-18, CC-MAIN-2024-10]\n")
    asked = []
    monkeypatch.setattr(params, "resolve", lambda uri, name, overrides, snapshots: asked.append(snapshots))
    fulfilled(Request(None, str(recipe), (), "CC-MAIN-2024-18"), "one")
    fulfilled(Request(None, str(recipe), (), None), "two")
    fulfilled(Request(None, str(recipe), ("snapshots=[]",), "CC-MAIN-2023-50"), "three")
    assert asked == [[], [], ["CC-MAIN-2023-50"]]
    with pytest.raises(
        RecipeError, match=r"^crawl CC-MAIN-2024-10: .* runs as CC-MAIN-2024-18; leave `snapshots` empty"
    ):
        fulfilled(Request(None, str(recipe), (), "CC-MAIN-2024-10"), "four")


def test_a_resolved_run_has_its_own_crawl():
    with pytest.raises(RecipeError, match=r"^crawl CC-MAIN-2024-10: the resolved run u has its own; leave crawl empty"):
        read_request({**FORM, "crawl": "CC-MAIN-2024-10", "run": "u"}, None, [])
    changes = ("filter.min_words=40", "ppo.steps=2")
    assert read_request({**FORM, "run": "u"}, None, []) == Request("u", "", changes, None)
    assert read_request({**FORM, "run": "u"}, None, [{"recipe": "e"}]) == Request("e", "", (), None, HANDED_ON)


def test_a_resolved_run_with_overrides_is_a_new_run_of_its_crawl_from_its_recipe(tmp_path):
    for name, text in (("a", "WARC/1.0\r\n"), ("b", "WARC/1.0\r\n\r\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.warc").write_text(text)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"store: {tmp_path}/store\ncrawl: {{source: {tmp_path}/a}}\nfilter: {{min_words: 7}}\n")
    first = fulfilled(Request(None, str(recipe), ("ppo.seed=5",), None), "first")
    recipe.write_text(
        f"store: {tmp_path}/store\ncrawl: {{source: {tmp_path}/b}}\n"
    )  # a run does not change with its recipe
    changed = fulfilled(Request(first.uri, "", ("filter.min_words=9",), None), "second")
    assert split_digest(changed.uri)[0] == split_digest(first.uri)[0].replace("/first/", "/second/")
    assert (changed.recipe.filter.min_words, changed.recipe.ppo.seed) == (9, 5)
    assert changed.segments == first.segments
    assert changed.task("crawl", changed.segments[0].partition).fingerprint in {
        task.fingerprint for task in first.tasks().values()
    }
    assert first.recipe.filter.min_words == 7
    with pytest.raises(RecipeError, match=r"^crawl CC-MAIN-2024-10: the recipe .*/first/recipe.yaml\S+ names A-"):
        fulfilled(Request(first.uri, "", ("filter.min_words=9",), "CC-MAIN-2024-10"), "third")


SEEN = {
    "https://mirror.example": {
        "offered": ["CC-MAIN-2024-18", "CC-MAIN-2024-10"],
        "recipe_name": "base",
        "overrides": [],
    },
    "/data/news": {
        "offered": ["NEWS-2024-10"],
        "recipe_name": "tiny",
        "overrides": ["ppo.steps=7", "crawl.source=news"],
    },
}
DEFAULTS = {"recipe": "sample", "crawl": None, "overrides": [], "run": None}


def test_a_backfill_without_the_form_uses_what_the_poll_kept_of_the_crawl():
    news = read_request(DEFAULTS, "NEWS-2024-10", [], {}, SEEN)
    assert news == Request(None, "tiny", ("ppo.steps=7", "crawl.source=/data/news"), "NEWS-2024-10", KEPT)
    old = read_request(DEFAULTS, "CC-MAIN-2024-10", [], {}, SEEN)
    assert old == Request(None, "base", ("crawl.source=https://mirror.example",), "CC-MAIN-2024-10", KEPT)


def test_what_a_person_sends_wins_over_what_was_kept():
    form = {**DEFAULTS, "recipe": "tiny", "overrides": ["ppo.steps=1"]}
    assert read_request(form, "NEWS-2024-10", [], form, SEEN) == Request(
        None, "tiny", ("ppo.steps=1",), "NEWS-2024-10", FORM_SAYS
    )
    said = {"overrides": ["ppo.steps=1", "crawl.source=/copy"]}
    assert read_request({**DEFAULTS, **said}, "NEWS-2024-10", [], said, SEEN).overrides == (
        *("ppo.steps=7", "crawl.source=/data/news"),
        *("ppo.steps=1", "crawl.source=/copy"),
    ), "overrides alone come on top of the kept ones, and the last counts"
    run = {"run": "u"}
    assert read_request({**DEFAULTS, **run}, "NEWS-2024-10", [], run, SEEN).run == "u"


def test_a_crawl_that_no_poll_has_seen_goes_by_the_form():
    unseen = read_request(DEFAULTS, "CC-MAIN-2023-50", [], {}, SEEN)
    assert unseen == Request(None, "sample", (), "CC-MAIN-2023-50", FORM_SAYS)
    assert read_request(DEFAULTS, None, [], {}, SEEN).recipe == "sample"


def test_what_a_run_uses_is_said_in_one_line():
    recipe = Recipe.model_validate({"crawl": {"source": "/data/news"}})
    request = Request(None, "tiny", ("ppo.steps=7", "crawl.source=/data/news"), "NEWS-2024-10", KEPT)
    assert uses(request, recipe) == (
        "uses recipe tiny, crawl NEWS-2024-10 of /data/news, as crawl_refresh keeps it; with ppo.steps=7"
    )
    assert (
        uses(Request(None, "tiny", (), None), recipe)
        == "uses recipe tiny, the newest crawl of /data/news, as the form says"
    )
    mixed = recipe.model_copy(update={"snapshots": ("B-2024-18", "A-2024-10")})
    assert uses(Request("u", "", (), None, HANDED_ON), mixed) == (
        "uses run u, crawl B-2024-18, A-2024-10 of /data/news, as the DAG before it"
    )
    assert len(uses(Request(None, "tiny", ("a.b=c " * 1000,), None), recipe)) < 600


def test_the_schedule_does_what_a_person_last_said():
    form = {"recipe": "tiny", "overrides": [" ppo.steps=2 "]}
    said, origin = told(form, form, None, "manual__1")
    assert (said, origin) == (Told("manual__1", "tiny", ("ppo.steps=2",)), FORM_SAYS)
    defaults = {"recipe": "sample", "overrides": []}
    kept = {"run": "manual__1", "recipe_name": "tiny", "overrides": ["ppo.steps=2"]}
    assert told(defaults, None, kept, "scheduled__2") == (said, "as set in manual__1")
    assert told(defaults, {}, kept, "scheduled__2")[0] == said
    alone, why = told(defaults, {}, None, "scheduled__2")
    assert alone == Told(None, "sample", ())
    assert why.startswith("the form's default")


def test_the_forms_fields_and_what_they_take(tmp_path, monkeypatch):
    monkeypatch.setattr(offered, "RECIPES", tmp_path)
    for name in ("b.yaml", "a.yaml", "notes.txt"):
        (tmp_path / name).touch()
    poll, stage = poll_params(), stage_params()
    shapes = {
        "recipe": {"type": "string", "minLength": 1, "title": "Recipe", "examples": ["a", "b", offered.DEFAULT_RECIPE]},
        "overrides": {"type": ["array", "null"], "items": {"type": "string"}, "title": "Overrides"},
        "crawl": {"type": ["null", "string"], "title": "Crawl"},
        "run": {"type": ["null", "string"], "title": "Resolved run"},
    }
    for form in (poll, stage):
        for name, field in form.items():
            assert {key: value for key, value in field.schema.items() if key != "description_md"} == shapes[name]
    assert {name: field.value for name, field in stage.items()} == {
        "recipe": offered.DEFAULT_RECIPE, "crawl": None, "overrides": [], "run": None,
    }  # fmt: skip
    assert list(poll) == ["recipe", "overrides"]
    with pytest.raises(ParamValidationError):
        poll["recipe"].resolve("")


def test_many_overrides_are_told_in_part():
    lines = tuple(f"filter.min_words={number}" for number in range(100))
    said = uses(Request(None, "tiny", lines, None), Recipe()).partition("; with ")[2]
    assert said.startswith("filter.min_words=0 filter.min_words=1 ")
    assert said.endswith(" ...")
    assert 380 < len(said) <= 400
    few = uses(Request(None, "tiny", lines[:20], None), Recipe()).partition("; with ")[2]
    assert few == " ".join(lines[:20]), "370 characters are told whole"


def test_a_crawl_is_named_as_the_request_has_it():
    request = Request(None, "tiny", (), "NEWS-2024-10")
    assert uses(request, Recipe(), "all crawls").startswith("uses recipe tiny, all crawls of https://")
    assert uses(request, Recipe()).startswith("uses recipe tiny, crawl NEWS-2024-10 of https://")


@pytest.mark.parametrize("one", [Request(None, "a", (), None), Told(None, "a", ())])
def test_what_was_asked_for_stays(one):
    with pytest.raises(FrozenInstanceError):
        one.overrides = ()
    assert Request(None, "a", (), None).origin == FORM_SAYS


def test_the_form_is_short_and_every_field_explains_itself():
    form = stage_params()
    assert list(form) == ["recipe", "crawl", "overrides", "run"]
    for field in form.values():
        assert field.schema["title"]
        assert 0 < len(field.schema["description_md"]) < 180
        field.resolve()  # the default passes the form's own check
