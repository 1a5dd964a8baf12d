"""Ways out of a deployment, tried one by one: `python -m perf.boundary`.

First through the trigger form and through asset events, as somebody may who may start a DAG; then in the store, as somebody may who
may write there. Prints each with what became of it. An honest request and an honest run must go through, or the refusals mean nothing.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from contract import gc, lineage
from contract.deployment import VARIABLE
from contract.digest import split_digest, with_digest
from contract.errors import GristmillError, InputError, RecipeError
from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest, find, need, read
from contract.plan import Run, Task, open_run, resolve
from contract.store import Store
from perf.bars import Bars

SECRET = "hunter2"
CRAWL_FILE = b"WARC/1.0\r\nWARC-Date: 2024-03-04T00:00:00Z\r\n"
FORM: dict[str, Any] = {"recipe": "prose", "crawl": None, "overrides": [], "run": None}


@dataclass(frozen=True)
class Scene:
    """A deployment in a folder: `recipes`, `store`, the root `data`, and beside them what nobody may reach.

    Of the server at the URL `server` only what lies below `/cc` is a root.
    """

    folder: Path
    server: str
    asked: list[str]
    """What reached the server."""

    def out_of_bounds(self) -> list[str]:
        """What was written or asked where nobody may."""
        written = ["elsewhere"] if (self.folder / "elsewhere").exists() else []
        return written + [path for path in self.asked if not path.startswith("/cc/")]


def make_scene(folder: Path, server: str, asked: list[str]) -> Scene:
    """Write the files of a deployment and name it in the environment."""
    for name in ("recipes", "data/crawl", "data2", "secret"):
        (folder / name).mkdir(parents=True)
    (folder / "data" / "crawl" / "a.warc").write_bytes(CRAWL_FILE)
    (folder / "secret" / "key.yaml").write_text(f"password: {SECRET}\n{SECRET}: [\n")
    (folder / "secret" / "a.warc").write_bytes(CRAWL_FILE)
    (folder / "data" / "link").symlink_to(folder / "secret")
    (folder / "recipes" / "link.yaml").symlink_to(folder / "secret" / "key.yaml")
    (folder / "recipes" / "prose.yaml").write_text(f"crawl: {{source: {folder}/data/crawl}}\n")
    (folder / "deployment.yaml").write_text(
        f"store: {folder}/store\nrecipes: {folder}/recipes\nroots: [{folder}/data, '{server}/cc']\nspark: {{master: 'local[2]'}}\n"
    )
    (folder / "deployment.yaml").chmod(0o600)
    os.environ[VARIABLE] = str(folder / "deployment.yaml")
    return Scene(folder, server, asked)


# ---------------------------------------------------------------- the trigger form and events

SETTINGS = {
    "store elsewhere": "store={folder}/elsewhere",
    "store in a bucket": "store=s3://theirs/x",
    "store by dots": "store={folder}/store/../elsewhere",
    "foreign Spark master": "spark.master=spark://127.0.0.1:1",
    "master on all cores": "spark.master=local[*]",
    "Java agent": "spark.conf={{spark.driver.extraJavaOptions: '-agentlib:jdwp=transport=dt_socket,server=y,address=*:5005'}}",
    "sitecustomize": "spark.conf={{spark.executorEnv.PYTHONPATH: {folder}/secret}}",
    "whole section spark": "spark={{master: yarn, conf: {{spark.jars: x}}}}",
    "port scan by source": "crawl.source={server}",
    "metadata service": "crawl.source=http://169.254.169.254/latest",
    "bucket with the worker's keys": "crawl.source=s3://theirs/warc",
    "folder outside": "crawl.source={folder}/secret",
    "dots out of a root": "crawl.source={folder}/data/../secret",
    "link out of a root": "crawl.source={folder}/data/link",
    "name that begins like a root": "crawl.source={folder}/data2",
    "file URI outside": "crawl.source=file://{folder}/secret",
    "file URI with dots": "crawl.source=file://{folder}/data/../secret",
    "file URI with a host": "crawl.source=file://localhost{folder}/data",
    "scheme in capitals": "crawl.source=FILE://{folder}/secret",
    "name and password": "crawl.source=http://me:word@127.0.0.1/",
    "address that begins like a root": "crawl.source={server}/cc2",
    "address with dots": "crawl.source={server}/cc/../x",
    "address with encoded dots": "crawl.source={server}/cc/%2e%2e/x",
    "address with dots encoded twice": "crawl.source={server}/cc/%252e%252e/x",
    "address with an encoded slash": "crawl.source={server}/cc/..%2fx",
    "address with a backslash": "crawl.source={server}/cc/..\\x",
    "address that redirects": "crawl.source={server}/cc/away",
    "block list": "crawl.blocklists=[{folder}/secret]",
    "bad words": "score.bad_words={folder}/secret",
    "language model": "score.perplexity_model={folder}/secret/key.yaml",
    "tokenizer": "dedup_substring.tokenizer={folder}/secret/key.yaml",
    "evaluation set": "decontaminate.benchmarks={{a: {folder}/secret/key.yaml}}",
    "curated source": "curate.sources={{a: {{uri: {folder}/secret/key.yaml}}}}",
    "instructions": "instructions.data={folder}/secret/key.yaml",
    "preferences": "preferences.data=/etc/passwd",
}
"""Name -> an override."""

PLACES = {
    "recipe outside": "{folder}/secret/key.yaml",
    "recipe by dots": "{folder}/recipes/../secret/key.yaml",
    "recipe by a link": "{folder}/recipes/link.yaml",
    "recipe by a name that is a link": "link",
    "recipe as a file URI": "file://{folder}/secret/key.yaml",
    "recipe that is no recipe": "/etc/passwd#.yaml",
    "recipe in a bucket": "s3://theirs/recipe.yaml",
    "run in another store": "{folder}/elsewhere/runs/a/recipe.yaml#sha256=" + "0" * 64,
    "run by dots": "{folder}/store/runs/a/../../../secret/key.yaml",
    "run without its digest": "{bare}",
    "run with another digest": "{bare}#sha256=" + "0" * 64,
}
"""Name -> what the form or an event calls a recipe or run."""


def requests(scene: Scene, honest: str) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """(name, form, asset events) of every try."""
    known = {"folder": scene.folder, "server": scene.server, "bare": split_digest(honest)[0]}
    for name, override in SETTINGS.items():
        yield name, FORM | {"overrides": [override.format(**known)]}, []
    for name, place in PLACES.items():
        yield name, FORM | {"recipe": place.format(**known)}, []
        yield f"{name}, as a run", FORM | {"run": place.format(**known)}, []
        yield f"{name}, by an event", FORM, [{"recipe": place.format(**known)}]
    yield "crawl that is a path", FORM | {"crawl": "../../elsewhere-2024-10"}, []
    at = f"crawl.source={scene.folder}/secret"
    yield "override on a run", FORM | {"run": honest, "overrides": [at]}, []
    yield "event of a poll", FORM, [{"recipe_name": "prose", "overrides": [at]}]
    yield "event that names a file", FORM, [{"recipe_name": f"{scene.folder}/secret/key.yaml", "overrides": []}]


def ask(name: str, form: Mapping[str, Any], events: list[dict[str, Any]]) -> Run:
    """What the task `resolve` does with a request."""
    from gristmill_airflow.params import fulfil, read_request, wanted

    request = read_request(form, None, events, form)
    return fulfil(request, wanted(request), f"corpus.{name}")


def tried(scene: Scene, name: str, form: Mapping[str, Any], events: list[dict[str, Any]]) -> str:
    """What became of a try; begins with `refused` where nothing came of it."""
    try:
        ask(name, form, events)
    except (RecipeError, InputError) as error:
        text = str(error)
        if SECRET in text or "root:" in text:
            return f"LEAKED {text}"
        return f"LEFT ITS BOUNDS {scene.out_of_bounds()}" if scene.out_of_bounds() else f"refused: {text}"
    except Exception as error:
        return f"BROKE {type(error).__name__}: {error}"
    return "WENT THROUGH"


# ---------------------------------------------------------------- the store


@dataclass(frozen=True)
class Held:
    """A run in a store, and its first task with one committed file and an attempt that nothing lists."""

    scene: Scene
    run: Run
    task: Task
    made: Manifest
    garbage: Attempt

    @property
    def store(self) -> Store:
        return self.run.store

    def put(self, **changed: Any) -> None:
        """Write another manifest in place of the committed one."""
        self.store.write_bytes(self.made.path, self.made.model_copy(update=changed).model_dump_json().encode())

    def own_run(self, old: bytes, new: bytes, name: str = "inputs.json") -> str:
        """The URI of a run of one's own, with the right digest, which differs from the honest one in some bytes."""
        files = {one: self.store.read_bytes(f"runs/one/{one}") for one in ("recipe.yaml", "inputs.json")}
        files[name] = files[name].replace(old, new)
        for one, data in files.items():
            self.store.write_bytes(f"runs/own/{one}", data)
        return with_digest(self.store.full("runs/own/recipe.yaml"), files["recipe.yaml"], files["inputs.json"])

    def swap(self, name: str, old: bytes, new: bytes) -> str:
        """Change a file of the honest run; its URI stays."""
        data = self.store.read_bytes(f"runs/one/{name}")
        self.store.write_bytes(f"runs/one/{name}", data.replace(old, new) if old else new)
        return self.run.uri


def hold(scene: Scene) -> Held:
    """A run that was resolved, and one finished task."""
    run = resolve(str(scene.folder / "recipes" / "prose.yaml"), "one")
    task = run.task("crawl", run.segments[0].partition)
    done, garbage = Attempt(run, task), Attempt(run, task)
    for attempt in (done, garbage):
        run.store.write_bytes(attempt.path("part"), b"x")
        os.utime(run.store.local(attempt.path("part")), (0, 0))
    made = done.commit([File(path=done.path("part"), kind=Kind.PAGES, bytes=1)])
    return Held(scene, run, task, made, garbage)


def opens(uri: Callable[[Held], str]) -> Callable[[Held], bool]:
    """Refused where a task that is given this URI opens no run."""
    return lambda held: _refuses(open_run, uri(held))


def reads(**changed: Any) -> Callable[[Held], bool]:
    """Refused where neither a task nor its successor takes a manifest of this content."""

    def check(held: Held) -> bool:
        held.put(**{key: value(held) if callable(value) else value for key, value in changed.items()})
        return _refuses(find, held.store, held.task) and _refuses(need, held.store, held.task)

    return check


def lists(path: str) -> Callable[[Held], bool]:
    """`reads`, with one more file; `{own}` is the folder of the attempt."""
    return reads(
        files=lambda held: (
            *held.made.files,
            File(path=path.format(own=f"{held.made.prefix}/{held.made.attempt}"), kind=Kind.PAGES, bytes=1),
        )
    )


def _refuses(function: Callable[..., Any], *given: Any) -> bool:
    try:
        function(*given)
    except GristmillError as error:
        return SECRET not in str(error)
    return False


def goes_on(change: Callable[[Held], None]) -> Callable[[Held], bool]:
    """Refused where, after a change, gc keeps the file of the finished task and lineage still answers for another one."""

    def check(held: Held) -> bool:
        other = Attempt(held.run, held.run.task("extract", held.task.partition)).commit([])
        change(held)
        gc.collect(held.store, gc.YOUNGEST_S, 1e10, delete=True)
        kept = held.store.exists(held.made.files[0].path)
        return kept and lineage.trace(held.store, held.store.full(other.path))[0].startswith("extract ")

    return check


def link_out(held: Held) -> bool:
    """A folder of the store that is a link: what is old behind it must stay."""
    outside = held.scene.folder / "secret" / held.garbage.id
    outside.mkdir()
    (outside / "mine").write_text(SECRET)
    os.utime(outside / "mine", (0, 0))
    held.store.write_bytes(f"crawl/{'0' * 40}/keep/x", b"")
    held.store.local(f"crawl/{'0' * 40}/all").symlink_to(held.scene.folder / "secret")
    removed, _ = gc.collect(held.store, gc.YOUNGEST_S, 1e10, True)
    return bool(removed) and not held.store.exists(removed[0].path) and (outside / "mine").exists()


def cursor(held: Held) -> bool:
    """The name of a crawl file that would clear a terminal."""
    held.put(sources=("/data/\x1b[2J\rerror: forged",))
    return not set("\x1b\r") & set("".join(lineage.trace(held.store, held.store.full(held.made.path))))


TAMPERINGS: dict[str, Callable[[Held], bool]] = {
    "recipe with Spark properties": opens(
        lambda held: held.swap("recipe.yaml", b"  driver_memory", b"  conf: {a: b}\n  driver_memory")
    ),
    "recipe with another threshold": opens(lambda held: held.swap("recipe.yaml", b"min_words: 50", b"min_words: 51")),
    "recipe with one blank more": opens(lambda held: held.swap("recipe.yaml", b"\n", b"\n\n")),
    "recipe that is empty": opens(lambda held: held.swap("recipe.yaml", b"", b"")),
    "inputs with another file": opens(lambda held: held.swap("inputs.json", b"/data/crawl/", b"/secret/")),
    "inputs with another size": opens(lambda held: held.swap("inputs.json", b'"size": ', b'"size": 1')),
    "inputs that are gone": opens(lambda held: held.store.delete("runs/one/inputs.json") or held.run.uri),  # type: ignore[func-returns-value]
    "URI without its digest": opens(lambda held: split_digest(held.run.uri)[0]),
    "own run that reads a secret file": opens(lambda held: held.own_run(b"/data/crawl/", b"/secret/")),
    "own run whose crawl is a path": opens(
        lambda held: held.own_run(b'"snapshot": "', b'"snapshot": "../../../elsewhere/')
    ),
    "own run whose segment is a path": opens(lambda held: held.own_run(b'"index": 0', b'"index": "../../elsewhere"')),
    "own run that is no JSON": opens(lambda held: held.own_run(b"}", b"")),
    "own run with another store": opens(lambda held: held.own_run(b"/store", b"/elsewhere", "recipe.yaml")),
    "own run with Spark properties": opens(
        lambda held: held.own_run(b"  driver_memory", b"  conf: {a: b}\n  driver_memory", "recipe.yaml")
    ),
    "manifest of another stage": reads(stage="extract"),
    "manifest of another fingerprint": reads(fingerprint="0" * 40),
    "manifest of another segment": reads(partition="OTHER-2024-10.00000"),
    "manifest of an attempt above": reads(attempt=".."),
    "manifest without an identity": reads(identity=None),
    "manifest of other settings": reads(
        identity=lambda held: held.made.identity.model_copy(update={"settings": {"crawl.max_payload_bytes": 1}})
    ),
    "file by an absolute path": lists("/etc/passwd"),
    "file above the store": lists("../../../../secret/key.yaml"),
    "file above its attempt": lists("{own}/../part"),
    "file of another task": lists("extract/x/y/part"),
    "file of a later stage": lists(f"filter/{'0' * 40}/all/attempt-0a/part"),
    "file that is a lock": lists("{own}/part.lock"),
    "file that is a half download": lists("{own}/part.part"),
    "damaged manifest before gc": goes_on(lambda held: held.store.write_bytes(held.made.path, b"{")),
    "empty manifest before gc": goes_on(lambda held: held.store.write_bytes(held.made.path, b"")),
    "foreign manifest before gc": goes_on(lambda held: held.put(partition="OTHER-2024-10.00000")),
    "manifest that is no file before gc": goes_on(
        lambda held: held.store.write_bytes("langid/a/b/manifest.json", b"\xff\xfe")
    ),
    "link out of the store before gc": link_out,
    "control characters before lineage": cursor,
}
"""Name -> whether it is refused, or changes nothing."""


def honest(held: Held) -> bool:
    """What nobody changed is opened and read."""
    return open_run(held.run.uri) == held.run and read(held.store, held.made.prefix) == held.made


# ---------------------------------------------------------------- both


def trigger_escapes(scene: Scene) -> tuple[int, int]:
    """(tries, those that were not refused), each printed."""
    escaped, tries = 0, list(requests(scene, ask("honest", FORM, []).uri))
    for name, form, events in tries:
        said = tried(scene, name.replace(" ", "-").replace(",", ""), form, events)
        escaped += not said.startswith("refused: ")
        print(f"trigger  {name:<46} {said[:150]}")
    return len(tries), escaped


def tamperings(make: Callable[[str], Scene]) -> tuple[int, int]:
    """(tries, those that were refused), each printed and each on a store of its own."""
    refused = 0
    if not honest(hold(make("honest"))):
        raise GristmillError("an honest run is refused: nothing was measured")
    for number, (name, check) in enumerate(TAMPERINGS.items()):
        held = hold(make(f"store-{number}"))
        ok = check(held) and not held.scene.out_of_bounds()
        refused += ok
        print(f"store    {name:<46} {'refused' if ok else 'TAKEN'}")
    return len(TAMPERINGS), refused


def measure(folder: Path) -> Bars:
    """All tries in folders below one."""
    asked: list[str] = []

    class Listens(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302 if self.path.startswith("/cc/away") else 404)
            self.send_header("Location", "/private")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    bars = Bars()
    with ThreadingHTTPServer(("127.0.0.1", 0), Listens) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        tries, escaped = trigger_escapes(make_scene(folder / "form", url, asked))
        bars.at_least("trigger_tries", tries, 20)
        bars.at_most("trigger_escapes", escaped, 0)
        tries, refused = tamperings(lambda name: make_scene(folder / name, url, asked))
        bars.at_least("store_tamperings", tries, 15)
        bars.at_least("store_tampering_refused", refused, tries)
        server.shutdown()
    return bars


def main() -> int:
    argparse.ArgumentParser(prog="python -m perf.boundary", description=__doc__).parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gristmill-boundary-"))
    os.environ |= {"AIRFLOW_HOME": str(folder / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    try:
        return measure(folder).code
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
