"""Where an administrator has set a deployment, recipes, overrides and runs choose only what it leaves to them."""

import os
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from contract import deployment, fetch
from contract import recipe as recipes
from contract.__main__ import main
from contract.deployment import VARIABLE, Deployment, current
from contract.digest import split_digest, with_digest
from contract.errors import InputError, RecipeError, SetupError
from contract.plan import open_run, resolve
from contract.recipe import Recipe
from contract.settings.base import Settings, Uri
from contract.settings.corpus import CuratedSource
from contract.stages import STAGES
from contract.store import Store

WHO = "the administrator decides that in the file that GRISTMILL_DEPLOYMENT names"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `recipes`, `store`, the root `data` with a crawl, and beside them `secret`, which nobody may read."""
    for name in ("recipes", "data/crawl", "data-2", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data" / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")
    (tmp_path / "secret" / "key.yaml").write_text("password: hunter2\n")
    (tmp_path / "recipes" / "prose.yaml").write_text(f"crawl: {{source: {tmp_path}/data/crawl}}\n")
    (tmp_path / "deployment.yaml").write_text(
        f"store: {tmp_path}/store\nrecipes: {tmp_path}/recipes\nroots: [{tmp_path}/data, s3://open/pages, https://h.test/cc]\n"
        "spark: {master: 'local[2]', conf: {spark.speculation: 'true'}}\n"
    )
    (tmp_path / "deployment.yaml").chmod(0o644)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "deployment.yaml"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_deployment_decides_store_and_spark(place: Path) -> None:
    run = resolve(str(place / "recipes" / "prose.yaml"), "one", ["spark.driver_memory=1g"])
    assert run.recipe.store == f"file://{place}/store"
    assert run.recipe.spark.master == "local[2]"
    assert run.recipe.spark.conf == {"spark.speculation": "true"}
    assert run.recipe.spark.driver_memory == "1g"
    assert open_run(run.uri) == run
    same = [f"store={place}/store/", "spark.master=local[2]", "spark.conf={spark.speculation: 'true'}"]
    assert resolve(str(place / "recipes" / "prose.yaml"), "two", same).recipe.spark.master == "local[2]"


def test_the_administrator_may_change_spark_under_a_run(place: Path) -> None:
    run = resolve(str(place / "recipes" / "prose.yaml"), "one")
    file = place / "deployment.yaml"
    file.write_text(file.read_text().replace("local[2]", "local[3]"))
    assert open_run(run.uri).recipe.spark.master == "local[3]"


OTHERS = [
    "store={place}/elsewhere",
    "store=s3://theirs/x",
    "store={place}/store/../secret",
    "spark.master=spark://elsewhere:7077",
    "spark.master=local[*]",
    "spark={{master: yarn}}",
    "spark.conf={{spark.jars: x}}",
    "spark.conf={{}}",
    "spark={{conf: {{spark.speculation: 'true', spark.jars: x}}}}",
]


@pytest.mark.parametrize("line", OTHERS)
def test_another_store_or_spark_is_refused_in_overrides_and_recipes(place: Path, line: str) -> None:
    line = line.format(place=place)
    refused = rf"(store|spark\.\w+) is not a recipe's to choose here; leave it out, because {WHO}$"
    with pytest.raises(RecipeError, match=refused):
        recipes.load(str(place / "recipes" / "prose.yaml"), [line])
    key, _, value = line.partition("=")
    values = yaml.safe_load(value)
    for part in reversed(key.split(".")):
        values = {part: values}
    (place / "recipes" / "theirs.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError, match=refused):
        recipes.load(str(place / "recipes" / "theirs.yaml"))


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("{place}/data/crawl", True),
        ("{place}/data", True),
        ("{place}/data/x/../crawl", True),
        ("{place}//data///crawl", True),
        ("file://{place}/data/crawl", True),
        ("s3://open/pages", True),
        ("s3://open/pages/", True),
        ("s3://open/pages/2024 a?b", True),
        ("https://h.test/cc/x", True),
        ("https://H.test:443/cc", True),
        ("{place}/data-2", False),
        ("{place}/data/../secret", False),
        ("{place}/data/link", False),
        ("file://{place}/data/../secret", False),
        ("file://localhost{place}/data", False),
        ("FILE:///etc", False),
        ("/", False),
        ("/etc", False),
        ("s3://open/pagesx", False),
        ("s3://open/pages/../private", False),
        ("s3://open/pages//x", False),
        ("s3://open//pages", False),
        ("s3://opened/pages", False),
        ("s3://open", False),
        ("s3://OPEN/pages", False),
        ("s3://open@evil/pages", False),
        ("S3://open/page", False),
        ("http://h.test/cc", False),
        ("https://h.test/ccx", False),
        ("https://h.test/cc/../x", False),
        ("https://h.test/cc/%2e%2e/x", False),
        ("https://h.test/cc/%2E./x", False),
        ("https://h.test/cc/..%2fx", False),
        ("https://h.test/cc/%252e%252e/x", False),
        ("https://h.test/cc/..\\x", False),
        ("https://h.test/cc/./x", False),
        ("https://h.test/cc?x=/../", False),
        ("https://h.test\\@evil.test/cc", False),
        ("https://h.test@evil.test/cc", False),
        ("https://h.test:444/cc", False),
        ("https://h.test./cc", False),
        ("https://ｈ.test/cc", False),
        ("gopher://h.test/cc", False),
    ],
)
def test_what_a_recipe_reads_lies_below_a_root(place: Path, uri: str, allowed: bool) -> None:
    (place / "data" / "link").symlink_to(place / "secret")
    made = current()
    assert made is not None
    assert (made.refuses(uri.format(place=place)) is None) == allowed


KEYS = {
    "crawl.source": "crawl.source={}",
    "crawl.blocklists.1": "crawl.blocklists=[s3://open/pages, {}]",
    "score.bad_words": "score.bad_words={}",
    "score.perplexity_model": "score.perplexity_model={}",
    "dedup_substring.tokenizer": "dedup_substring.tokenizer={}",
    "decontaminate.benchmarks.a b": "decontaminate.benchmarks={{a b: {}}}",
    "curate.sources.books.uri": "curate.sources={{books: {{uri: {}}}}}",
    "tokenizer.start_from": "tokenizer.start_from={}",
    "tokenizer.expand.model": "tokenizer={{start_from: s3://open/pages/x, expand: {{model: {}}}}}",
    "tokenizer.reference": "tokenizer.reference={}",
    "instructions.data": "instructions.data={}",
    "preferences.data": "preferences.data={}",
    "prompts.data": "prompts.data={}",
    "instructions.sources.a.data": "instructions.sources={{a: {{data: {}}}}}",
    "preferences.sources.a.data": "preferences.sources={{a: {{data: {}}}}}",
    "preferences.rounds.a.votes": "preferences.rounds={{a: {{votes: {}}}}}",
    "pretrain.start_from": "pretrain.start_from={}",
    "sft.start_from": "sft.start_from={}",
    "sft.chat_template": "sft.chat_template={}",
    "reward.start_from": "reward.start_from={}",
    "pretrain.distill.teacher": "pretrain.distill.teacher={}",
    "sample.gold": "sample={{gold: {}}}",
    "sample.principles": "sample={{judge: aligned, principles: {}}}",
    "feedback.judge.principles": "feedback.judge={{model: m, principles: {}}}",
    "probe.tasks.quiz": "probe.tasks={{quiz: {}}}",
    "benchmark.tasks.mmlu.items": "benchmark.tasks={{mmlu: {{items: {}}}}}",
    "benchmark.tasks.mmlu.shots": "benchmark.tasks={{mmlu: {{items: s3://open/pages/x, shots: {}}}}}",
    "benchmark.tasks.ceval.names": "benchmark.tasks={{ceval: {{items: s3://open/pages/x, names: {}}}}}",
    "benchmark.tasks.mmlu.words": "benchmark.tasks={{mmlu: {{items: s3://open/pages/x, words: {}}}}}",
    "benchmark.others.mine": "benchmark.others={{mine: {}}}",
}


@pytest.mark.parametrize("key", KEYS)
def test_every_uri_of_a_recipe_is_held_against_the_roots(place: Path, key: str) -> None:
    file = str(place / "recipes" / "prose.yaml")
    with pytest.raises(RecipeError, match=rf"{key}: /etc/passwd lies below none of the roots; {WHO}$"):
        recipes.load(file, [KEYS[key].format("/etc/passwd")])
    made = recipes.load(file, [KEYS[key].format("s3://open/pages/x")])
    assert dict(made.uris())[key] == "s3://open/pages/x"


def test_no_uri_of_a_recipe_is_missed() -> None:
    """`KEYS` and `store` are all fields whose type has Uri in it, and all that stages read from outside."""

    def typed(model: type[Settings], above: str = "") -> Iterator[str]:
        for name, field in model.model_fields.items():
            kinds = list(_all(field.annotation)) + list(field.metadata)
            inner = [one for one in kinds if isinstance(one, type) and issubclass(one, Settings)]
            for one in inner:
                yield from typed(one, f"{above}{name}.")
            if not inner and get_args(Uri)[-1] in kinds:
                yield f"{above}{name}"

    found = {key.split(".")[0] + "." + key.split(".")[1] if "." in key else key for key in typed(Recipe)}
    assert found == {"store", *(".".join(key.split(".")[:2]) for key in KEYS)}
    full = Recipe.model_validate({"curate": {"sources": {"a": CuratedSource(uri="/b")}}})
    named = {uri for _, uri in full.uris()}
    assert all(set(full.section(stage).outside().values()) <= named for stage in STAGES)
    assert "synthetic" not in named


def _all(kind: Any) -> Iterator[Any]:
    yield kind
    for one in get_args(kind):
        yield from _all(one)


def test_the_default_source_is_no_exception(place: Path) -> None:
    (place / "recipes" / "empty.yaml").write_text("")
    with pytest.raises(
        RecipeError, match=r"crawl\.source: https://data\.commoncrawl\.org lies below none of the roots"
    ):
        recipes.load(str(place / "recipes" / "empty.yaml"))


@pytest.mark.parametrize(
    "uri",
    [
        "{place}/secret/key.yaml",
        "secret/key.yaml",
        "recipes/../secret/key.yaml",
        "recipes/link.yaml",
        "file://{place}/recipes/../secret/key.yaml",
        "s3://theirs/recipe.yaml",
        "{place}/store/runs/one/../../../secret/key.yaml",
        "{place}/store/recipe.yaml",
        "{place}/store/runs/one/inputs.json",
        "{place}/store/runs/one/two/recipe.yaml",
        "{place}/store-2/runs/one/recipe.yaml",
    ],
)
def test_a_recipe_lies_in_its_folder_or_is_a_run_of_the_store(place: Path, uri: str) -> None:
    (place / "recipes" / "link.yaml").symlink_to(place / "secret" / "key.yaml")
    for digest in ("", f"#sha256={'0' * 64}"):
        for read in (recipes.load, open_run):
            with pytest.raises(
                RecipeError,
                match=r"is neither a recipe in .*/recipes nor a resolved run in file://.*/store; the administrator decides",
            ) as told:
                read(uri.format(place=place) + digest)
            assert "hunter2" not in str(told.value)
            assert "password" not in str(told.value)


def test_a_resolved_run_is_opened_only_with_its_digest(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = resolve(str(place / "recipes" / "prose.yaml"), "one")
    bare, _ = split_digest(run.uri)
    for read in (open_run, recipes.load):
        with pytest.raises(RecipeError, match="is opened here only by the URI that ends in #sha256="):
            read(bare)
    assert main(["plan", "--recipe", bare]) == 78
    assert main(["plan", "--recipe", run.uri]) == 0
    capsys.readouterr()
    run.store.write_bytes("runs/one/recipe.yaml", run.store.read_bytes("runs/one/recipe.yaml") + b"#")
    with pytest.raises(RecipeError, match="changed since the run was resolved"):
        open_run(run.uri)


def test_a_crawl_file_that_a_run_names_lies_below_a_root_too(place: Path) -> None:
    """Whoever may write the store could make a run of their own, with a digest that is right."""
    run = resolve(str(place / "recipes" / "prose.yaml"), "one")
    recipe, inputs = (run.store.read_bytes(f"runs/one/{name}") for name in ("recipe.yaml", "inputs.json"))
    inputs = inputs.replace(b"/data/crawl/a.warc", b"/secret/key.yaml")
    run.store.write_bytes("runs/evil/recipe.yaml", recipe)
    run.store.write_bytes("runs/evil/inputs.json", inputs)
    with pytest.raises(RecipeError, match=r"crawl file .*/secret/key\.yaml lies below none of the roots"):
        open_run(with_digest(run.store.full("runs/evil/recipe.yaml"), recipe, inputs))
    (place / "data" / "crawl" / "b.warc").symlink_to(place / "secret" / "key.yaml")
    with pytest.raises(RecipeError, match=r"crawl file .*/b\.warc lies below none of the roots"):
        resolve(str(place / "recipes" / "prose.yaml"), "two")


def test_a_redirect_leads_to_no_other_place(place: Path, serve: Callable[..., str]) -> None:
    asked: list[str] = []

    class Redirects(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302 if self.path.startswith("/cc/from") else 200)
            self.send_header("Location", self.path.partition("?")[2] or "/private")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    url = serve(Redirects)
    file = place / "deployment.yaml"
    file.write_text(file.read_text().replace("https://h.test/cc", f"{url}/cc"))
    with pytest.raises(InputError, match=r"redirects to .*/private, which lies below none of the roots"):
        fetch.get(f"{url}/cc/from")
    assert asked == ["/cc/from"]
    fetch.get(f"{url}/cc/from?/cc/to")
    assert asked[1:] == ["/cc/from?/cc/to", "/cc/to"]


def test_without_the_variable_a_recipe_decides(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    assert current() is None
    made = recipes.load(
        str(place / "recipes" / "prose.yaml"), ["store=/x", "spark.master=yarn", "instructions.data=/etc/passwd"]
    )
    assert (made.store, made.spark.master, made.instructions.data) == ("/x", "yarn", "/etc/passwd")
    assert "master: yarn" in recipes.dump(made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("store: /s", "recipes: Field required"),
        ("store: /s\nrecipes: /r\nmaster: x", "master: unknown key; allowed here: recipes, roots, spark, store"),
        ("store: /s\nrecipes: s3://b/r", "recipes: should be a folder on this machine, as an absolute path"),
        ("store: /s\nrecipes: /r\nspark: {master: nonsense}", "spark.master: should be local"),
        ("hunter2: [", "is not valid YAML: expected the node content, but found '<stream end>' at line 1, column 11"),
        ("store: /s\nstore: /t", "key 'store' stands twice at line 2, column 1"),
        ("stoer: /s", "stoer: unknown key; did you mean store?"),
        ("store: /s\nrecipes: /nowhere", "recipes: /nowhere is not a folder on this machine"),
        ("store: /s\nrecipes: /r\nroots: /data", "roots: should be a list, as in [a, b]"),
        ("- hunter2", "must hold keys and values, not a list"),
        ("store: /s\nrecipes: /r\nroots: ['https://h/../x']", "roots.0: 'https://h/../x' should be a plain path"),
    ],
)
def test_a_wrong_deployment_stops_everything(place: Path, text: str, message: str) -> None:
    (place / "deployment.yaml").write_text(text)
    with pytest.raises(SetupError, match="GRISTMILL_DEPLOYMENT=") as told:
        recipes.load(str(place / "recipes" / "prose.yaml"))
    assert message in str(told.value)
    assert "hunter2" not in str(told.value)


def test_a_deployment_that_is_missing_or_that_others_may_write_stops_everything(place: Path) -> None:
    file = place / "deployment.yaml"
    for mode in (0o664, 0o646):
        file.chmod(mode)
        with pytest.raises(SetupError, match="others than its owner may write it; run: chmod go-w"):
            current()
    os.remove(file)
    with pytest.raises(SetupError, match="cannot be read"):
        current()


def test_a_deployment_reads_nothing_until_it_names_roots(tmp_path: Path) -> None:
    made = Deployment(store=str(tmp_path), recipes=str(tmp_path))
    assert made.refuses("/data") == "lies below none of the roots"
    assert made.refuses(Store(str(tmp_path)).uri) == "lies below none of the roots", "the store is no root by itself"
    assert deployment.WHO == WHO


def test_a_variable_that_names_nothing_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose hands on a variable that is not set as an empty one."""
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(SetupError, match="is set and names no file"):
        current()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file away")
def test_a_deployment_of_another_user_stops_everything(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(place / "deployment.yaml", 12345, -1)
    with pytest.raises(SetupError, match="belongs to user 12345; it should be root's or this user's"):
        current()


@pytest.mark.skipif(os.getuid() != 0, reason="only root owns what root may give")
def test_roots_deployment_holds_for_every_user(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    assert current() is not None


@pytest.mark.parametrize(("store", "recipes"), [("a/store", "a"), ("a", "a/recipes"), ("a", "a")])
def test_who_writes_the_store_writes_no_recipes(place: Path, store: str, recipes: str) -> None:
    (place / "deployment.yaml").write_text(f"store: {place}/{store}\nrecipes: {place}/{recipes}\n")
    with pytest.raises(SetupError, match="store and recipes lie within one another"):
        current()
