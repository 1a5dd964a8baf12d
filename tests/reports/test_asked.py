"""What a person asks for is examined as typed, forecast without writing, and handed to Airflow or a shell."""

import shlex
import subprocess
import sys
import time

import pytest

from contract import offered
from contract.errors import InputError, RecipeError, StoreError
from contract.mistakes import Mistake
from contract.plan import draft
from contract.recipe import load
from gristmill_airflow.params import read_request, stage_params
from reports.asked import (
    MOST_CHARS,
    MOST_LINES,
    TOLD_CHARS,
    Asked,
    commands,
    conf,
    examine,
    expect,
    find_unlisted,
    partition_key,
    read_lines,
)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An offered recipe of a small crawl, by its name."""
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    (crawl / "a.warc.gz").write_bytes(b"WARC")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "own.yaml").write_text(
        f"name: own\nstore: {tmp_path}/store\ncrawl: {{source: {crawl}}}\npretrain: {{steps: 20}}\n"
    )
    monkeypatch.setattr(offered, "RECIPES", tmp_path / "recipes")
    return "own"


def test_lines_are_counted_as_the_person_sees_them(own):
    asked = Asked("corpus", own, ("", "filter.min_words=9", "  ", " filter.min_word=3 ", "ppo.gamma=2"))
    assert asked.overrides == ("filter.min_words=9", "filter.min_word=3", "ppo.gamma=2")
    recipe, found = examine(asked)
    assert recipe is None
    assert [(one.line, one.key) for one in found] == [(3, "filter.min_word"), (4, "ppo.gamma")]


def test_without_mistakes_it_is_the_recipe_that_the_run_gets(own):
    asked = Asked("corpus", own, ("filter.min_words=9",))
    assert examine(asked) == (load(asked.uri, ["filter.min_words=9"]), [])


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../own.yaml", "s3://bucket/a.yaml", "recipes/tiny.yaml", "", "own.yaml"]
)
def test_nothing_but_offered_recipes_is_read(own, path, monkeypatch):
    monkeypatch.setattr("reports.asked.find_mistakes", None)
    recipe, [mistake] = examine(Asked("corpus", path))
    assert recipe is None
    assert (mistake.key, mistake.message) == ("recipe", f"{path!r} is not one of own, sample")


def test_an_offered_recipe_that_is_gone_or_broken_is_a_mistake(own, tmp_path):
    (tmp_path / "recipes" / "own.yaml").write_text("a: [")
    [mistake] = examine(Asked("corpus", own))[1]
    assert mistake.key == "recipe"
    assert "is not valid YAML" in mistake.message
    [gone] = examine(Asked("corpus", "sample"))[1]
    assert "recipe 'sample': no such file" in gone.message


@pytest.mark.parametrize(
    ("crawl", "more", "said"),
    [
        ("CC-MAIN", (), "a name ends in year and ISO week"),
        ("CC-MAIN-2024-60", (), "there is no ISO week 60 in 2024"),
        ("A-2024-10", ("snapshots=[A-2024-12]",), "the recipe names A-2024-12; leave this empty"),
        ("../x-2024-10", (), "a name ends in year and ISO week"),
    ],
)
def test_a_crawl_that_cannot_be_is_a_mistake_of_its_field(own, crawl, more, said):
    [mistake] = examine(Asked("corpus", own, more, crawl))[1]
    assert mistake.key == "crawl"
    assert mistake.line is None
    assert said in mistake.message


def test_an_earlier_run_has_its_crawl(resolve_run, own, tmp_path):
    run = resolve_run(tmp_path / "crawl")
    assert examine(Asked("pretrain", "", (), "", run)) == (run.recipe, [])
    assert examine(Asked("pretrain", "", (), "A-2024-10", run))[1] == [
        Mistake("crawl", "an earlier run has its own crawl; leave this empty")
    ]


def test_a_source_that_cannot_be_listed_is_a_mistake_of_the_line_that_names_it(own, tmp_path):
    def asked(*lines):
        return Asked("corpus", own, lines)

    def told(asked, **how):
        return find_unlisted(asked, examine(asked)[0], **how)

    nowhere = asked("", "crawl.source=/nowhere", f"crawl.source={tmp_path}/gone")
    assert told(nowhere) == Mistake(
        "crawl.source",
        f"{tmp_path}/gone: it is missing or empty; name a folder or prefix with WARC or WET files",
        2,
    )
    assert told(asked()) is None
    data = asked(f"instructions.data={tmp_path}/none.jsonl")
    assert told(data, outside=False) is None
    assert told(data) == Mistake(
        "instructions.data", f"{tmp_path}/none.jsonl does not exist; check the path, or leave the key out", 0
    )


def test_an_earlier_runs_crawl_is_not_listed_again(resolve_run, own, tmp_path):
    run = resolve_run(tmp_path / "crawl")
    (tmp_path / "crawl" / "a.warc.gz").unlink()
    for lines, key in [((), None), (("pretrain.steps=3",), None), (("crawl.max_files=1",), "")]:
        asked = Asked("pretrain", "", lines, "", run)
        found = find_unlisted(asked, examine(asked)[0])
        assert (found and found.key) == key


def test_too_much_text_is_not_read():
    assert read_lines("a=1\n\nb=2") == ("a=1", "", "b=2")
    with pytest.raises(RecipeError, match="20,001 characters"):
        read_lines("a" * (MOST_CHARS + 1))
    with pytest.raises(RecipeError, match="201 lines"):
        read_lines("\n" * MOST_LINES)


HOSTILE = [
    "a" * MOST_CHARS, "." * MOST_CHARS, "=" * MOST_CHARS, "a." * 9_990 + "a=1", "filter=" + "{" * 9_000,
    "pretrain.engine.deepspeed=" + "{a: " * 4_000, "x=" + "[" * 9_000 + "]" * 9_000, "snapshots=[" + "1," * 9_000 + "]",
    "name=" + "&a " * 6_000, "ppo.steps=" + "9" * 19_000, "ppo.gamma=" + "1:" * 9_000 + "1", "crawl.source=http://" + "a@" * 9_000,
    "crawl.source=" + "/.." * 6_000, "\n".join(["filter.x=1"] * 199), "name=" + "\u202e" * 9_000, "ppo.gamma=!!python/object:os.system {}",
    "name=" + "<script>" * 2_000, "a.b\x00c=1", "\ud800=1", "tokenizer.special_tokens={" + ",".join(f"k{i}: v" for i in range(2_000)) + "}",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_overrides_are_examined_quickly_and_told_shortly(own, text):
    began = time.monotonic()
    recipe, found = examine(Asked("corpus", own, read_lines(text)))
    assert time.monotonic() - began < 2
    assert recipe is None or not found
    assert max((len(one.message) for one in found), default=0) <= TOLD_CHARS + 4
    assert len(found) <= 200


def test_what_a_run_would_do_writes_nothing_and_lists_the_crawl(own, tmp_path):
    asked = Asked("corpus", own, ("filter.min_words=9",))
    made = expect(asked, examine(asked)[0], [])
    assert (made.files, len(made.crawls), made.steps[0].to_run) == (1, 1, 1)
    assert not (tmp_path / "store").exists()
    named = Asked("corpus", own, (), "OTHER-2024-10")
    with pytest.raises(InputError, match="not OTHER-2024-10"):
        expect(named, examine(named)[0], [])


def test_a_continued_run_is_not_listed_again(resolve_run, own, tmp_path):
    run = resolve_run(tmp_path / "crawl")
    (tmp_path / "crawl" / "a.warc.gz").unlink()
    asked = Asked("corpus", "", (), "", run)
    assert expect(asked, run.recipe, []).files == 1
    changed = Asked("corpus", "", ("filter.min_words=9",), "", run)
    with pytest.raises(InputError, match="it is missing or empty"):
        expect(changed, examine(changed)[0], [])


def test_a_server_that_does_not_answer_is_given_up_soon(own):
    asked = Asked("corpus", own, ("crawl.source=http://127.0.0.1:9/x",))
    began = time.monotonic()
    with pytest.raises(StoreError, match="cannot be reached"):
        expect(asked, examine(asked)[0], [])
    assert time.monotonic() - began < 10


def test_only_runs_of_the_same_store_are_compared(resolve_run, own, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("reports.asked.samples", lambda runs, stages: seen.extend(runs) or [])
    run = resolve_run(tmp_path / "crawl")
    other = resolve_run(tmp_path / "crawl", {"store": str(tmp_path / "other")})
    asked = Asked("corpus", own)
    expect(asked, examine(asked)[0], [other, run])
    assert seen == [run]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Asked("corpus", "own", ("ppo.steps=2", "")), {"recipe": "own", "overrides": ["ppo.steps=2"]}),
        (Asked("corpus", "own", (), "A-2024-10"), {"recipe": "own", "crawl": "A-2024-10", "overrides": []}),
    ],
)
def test_the_dags_take_what_the_page_sends(asked, expected):
    assert conf(asked) == expected
    params = {name: field.value for name, field in stage_params().items()} | conf(asked)
    assert params.keys() == stage_params().keys()
    request = read_request(params, asked.crawl or None, [], conf(asked))
    assert (request.recipe, request.overrides, request.crawl) == ("own", asked.overrides, asked.crawl or None)


def test_the_dags_take_an_earlier_run(resolve_run, own, tmp_path):
    run = resolve_run(tmp_path / "crawl")
    asked = Asked("pretrain", "", ("ppo.steps=2",), "", run)
    assert conf(asked) == {"run": run.uri, "overrides": ["ppo.steps=2"]}
    key = partition_key(asked, run.recipe)
    assert key == run.recipe.snapshots[0]
    params = {name: field.value for name, field in stage_params().items()} | conf(asked)
    request = read_request(params, key, [], conf(asked))
    assert (request.run, request.overrides, request.crawl) == (run.uri, ("ppo.steps=2",), key)


def test_the_newest_crawl_has_no_name_yet(own):
    asked = Asked("corpus", own)
    assert partition_key(asked, examine(asked)[0]) is None
    assert partition_key(Asked("corpus", own, (), "A-2024-10"), examine(asked)[0]) == "A-2024-10"


def test_the_commands_make_the_run_that_was_forecast(resolve_run, own, tmp_path):
    asked = Asked("corpus", own, ("name='a b'; $(touch /tmp/x)", "filter.min_words=9"))
    made, listed = commands(asked)
    assert shlex.split(made.removeprefix("RUN=$(").removesuffix(")")) == [
        "python", "-m", "contract", "resolve", "--recipe", asked.uri, "--set", asked.overrides[0], "--set", "filter.min_words=9",
    ]  # fmt: skip
    assert listed == 'python -m contract commands --recipe "$RUN"'
    plain = Asked("corpus", own, ("filter.min_words=9",), draft(load(asked.uri)).recipe.snapshots[0])
    script = "; ".join(commands(plain)).replace("python -m", f"{sys.executable} -m")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert "-m pipelines crawl --recipe " in done.stdout, done.stderr
    run = resolve_run(tmp_path / "crawl")
    [single] = commands(Asked("corpus", "", (), "", run))
    assert shlex.split(single)[-2:] == ["--recipe", run.uri]
