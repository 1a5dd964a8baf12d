"""Every kind of bad input ends `make demo` with one line that says what to do, before Airflow is started."""

import fcntl
import os
import socket
import stat
import subprocess

import pytest

from contract import recipe as recipes
from demo import __main__ as demo
from demo import server, source


@pytest.fixture(autouse=True)
def no_airflow(monkeypatch):
    def started(*_):
        raise AssertionError("Airflow was started in spite of bad input")

    monkeypatch.setattr(server, "start", started)


@pytest.fixture
def start(tmp_path, capsys):
    """`start("--crawl", DIR)` -> (exit code, the error line)."""

    def call(*arguments):
        # Below the ports that the system hands out: of those, others may take a neighbour at any moment.
        port = next(one for one in range(20_000, 30_000, 7) if server.is_free(one))
        code = demo.main(["start", "--where", str(tmp_path / "home"), "--port", str(port), *arguments])
        lines = [line for line in capsys.readouterr().err.splitlines() if line]
        assert len(lines) == 1, lines
        return code, lines[0].removeprefix("error: ")

    return call


def committed(tmp_path):
    return [file for file in (tmp_path / "home").rglob("*") if file.is_file() and file.name != "demo.lock"]


def test_missing_crawl(start, tmp_path):
    assert start("--crawl", f"{tmp_path}/nowhere") == (
        65,
        f"crawl.source {tmp_path}/nowhere: it is missing or empty; name a folder or prefix with WARC or WET files",
    )
    assert committed(tmp_path) == []


def test_folder_without_warc_files(start, tmp_path):
    (tmp_path / "notes.txt").write_text("no crawl")
    code, line = start("--crawl", str(tmp_path))
    assert (code, "none of its" in line, "name a folder or prefix with WARC or WET files" in line) == (65, True, True)
    assert committed(tmp_path) == []


def test_unknown_recipe_key(start, tmp_path):
    code, line = start("--set", "filter.min_word=3")
    assert code == 78
    assert "filter.min_word: unknown key; did you mean min_words?" in line
    assert committed(tmp_path) == []


def test_missing_recipe(start):
    code, line = start("--recipe", "recipes/none.yaml")
    assert (code, line) == (
        78,
        "recipe recipes/none.yaml: no such file; there are recipes/base.yaml, recipes/large.yaml, recipes/sample.yaml, recipes/tiny.yaml",
    )


def test_unreachable_store(start, tmp_path, monkeypatch):
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:9"), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(f"AWS_{name}", value)
    code, line = start("--set", "store=s3://bucket/prefix")
    assert code == 1
    assert line.startswith("s3://bucket/prefix")
    assert "cannot be reached; check AWS_ENDPOINT_URL and the network" in line


def test_port_in_use(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert demo.main(["start", "--where", str(tmp_path), "--port", str(port)]) == 1
    assert f"error: port {port} is in use by process {os.getpid()} (" in capsys.readouterr().err


def test_no_java(start, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert start() == (1, "no Java was found: Spark needs Java 17; on Debian: apt-get install openjdk-17-jre-headless")


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert demo.main(["start", "--where", str(tmp_path / "file" / "home")]) == 1
    assert f"error: [Errno 20] Not a directory: '{tmp_path}/file/home'; make room" in capsys.readouterr().err


def test_the_folder_is_the_users_own(start, tmp_path, monkeypatch):
    start("--recipe", "none.yaml")
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    code, line = start()
    assert (code, line.startswith(f"{tmp_path}/home belongs to user {os.stat(tmp_path).st_uid};")) == (1, True)


def test_second_demo_while_one_runs(start, tmp_path):
    (tmp_path / "home").mkdir()
    with (tmp_path / "home" / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        code, line = start()
    assert code == 1
    assert line.startswith(f"another `make demo` (process 4711) runs in {tmp_path}/home; wait for it")


def test_common_crawl_is_used_when_it_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(source.sources, "list_snapshots", lambda url, retries: ["CC-MAIN-2026-43", "CC-MAIN-2026-38"])
    pages = source.choose(tmp_path, "recipes/tiny.yaml", None, (f"store={tmp_path}/store",), None)
    assert pages.snapshot == "CC-MAIN-2026-43"
    assert pages.overrides == ("crawl.max_files=2", "crawl.max_bytes_per_file=20000000")


def test_common_crawl_as_the_recipe_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(source.sources, "list_snapshots", lambda url, retries: ["CC-MAIN-2026-43"])
    named = ("snapshots=[CC-MAIN-2024-18, CC-MAIN-2024-10]", "crawl.max_files=7", f"store={tmp_path}/store")
    pages = source.choose(tmp_path, "recipes/tiny.yaml", None, named, None)
    assert pages.snapshot == "CC-MAIN-2024-18"
    assert pages.overrides == ("crawl.max_bytes_per_file=20000000",)
    assert pages.description == "Common Crawl CC-MAIN-2024-18, CC-MAIN-2024-10: the first 20 MB of 7 files of each"


def test_the_forms_default_is_the_demos_recipe_with_its_pages(tmp_path):
    overrides = ("crawl.source=/data/warc", "filter.min_words=30", f"store={tmp_path}/store")
    file = demo._form_default(tmp_path, "recipes/tiny.yaml", overrides)
    assert recipes.load(str(file)) == recipes.load("recipes/tiny.yaml", overrides)
    assert [one.name for one in tmp_path.iterdir()] == ["demo.yaml"]
    demo._form_default(tmp_path, "recipes/tiny.yaml", ("crawl.source=/data/other",))
    assert recipes.load(str(file)).crawl.source == "/data/other", "a later demo's"


def test_the_form_line_says_which_default_is_in_force(tmp_path, monkeypatch):
    form = tmp_path / "demo.yaml"
    monkeypatch.delenv("GRISTMILL_RECIPE", raising=False)
    said = f"{form}, this recipe with these pages, is the default of Airflow's trigger forms"
    assert demo._form_line(form, demo.server.recipe_in_force(None, form)) == said
    monkeypatch.setenv("GRISTMILL_RECIPE", "base")
    said = f"the default of Airflow's trigger forms is base, as GRISTMILL_RECIPE says; this recipe with these pages is {form}"
    assert demo._form_line(form, demo.server.recipe_in_force(None, form)) == said


def test_an_airflow_that_is_up_keeps_the_default_that_it_was_started_with(tmp_path, monkeypatch):
    monkeypatch.setenv("GRISTMILL_RECIPE", "base")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(["cat"], env={"GRISTMILL_RECIPE": "tiny"}, **pipes, bufsize=0) as process:
        process.stdin.write(b"\n")
        assert process.stdout.read(1) == b"\n", "it has its environment once it answers"
        running = demo.server.Server(tmp_path, process.pid, 8080)
        assert demo.server.recipe_in_force(running, tmp_path / "demo.yaml") == "tiny"
        process.kill()


@pytest.mark.parametrize(
    ("where", "command"),
    [([], "make stop"), (["--where", "/tmp/a b"], "make stop WHERE='/tmp/a b'"), (["--where", "home"], "make stop")],
)
def test_how_to_stop_names_the_folder(where, command, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_alone", interrupted)
    assert demo.main(["start", *where]) == 130
    assert f"`{command}` ends it." in capsys.readouterr().err


def test_stop_without_a_demo(tmp_path, capsys):
    assert demo.main(["stop", "--where", str(tmp_path)]) == 0
    said = f"nothing was running in {tmp_path}; a demo in another folder ends with: make stop WHERE=DIR\n"
    assert capsys.readouterr().out == said
