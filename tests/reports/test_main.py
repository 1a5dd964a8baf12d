"""`python -m reports serve`: a real server on loopback; `freeze`: the votes that count."""

import datetime
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests

from contract import feedback
from contract.conversation import Turn
from contract.feedback import Item, Reply, Round, Vote
from contract.store import Store
from demo.server import is_free
from reports.__main__ import main

ROOT = Path(__file__).parents[2]


def test_the_pages_of_a_store_are_served_on_this_machine_alone(judged):
    port = next(one for one in range(18090, 18190) if is_free(one))
    command = [sys.executable, "-m", "reports", "serve", "--store", judged.store.uri, "--port", str(port)]
    environment = {**os.environ, "GRISTMILL_DEPLOYMENT": ""} | {}
    del environment["GRISTMILL_DEPLOYMENT"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert (
                server.stdout.readline() == f"runs of {judged.store.uri}: http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
            )
            page = until_it_answers(f"http://127.0.0.1:{port}/")
            assert "url_filter 3" in page.text
            assert page.url.endswith("/run")
            [held] = [one for one in psutil.Process(server.pid).net_connections() if one.status == "LISTEN"]
            assert held.laddr.ip == "127.0.0.1"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)


def until_it_answers(url):
    deadline = time.monotonic() + 20
    while True:
        try:
            return requests.get(url, timeout=20)
        except requests.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize(("arguments", "said"), [
    (["--store", "http://x"], "scheme http:// is not supported"),
    (["--store", "/nowhere", "--deployment", "/nowhere/file.yaml"], "cannot be read"),
])  # fmt: skip
def test_a_mistake_is_one_line(capsys, monkeypatch, arguments, said):
    monkeypatch.setenv("GRISTMILL_DEPLOYMENT", "/nowhere/other.yaml")  # what the command sets is taken back
    assert main(["serve", *arguments]) != 0
    assert said in capsys.readouterr().err


def test_the_votes_of_a_round_are_frozen_by_command(tmp_path, capsys):
    store = Store(str(tmp_path))
    prompt = (Turn("user", "?"),)
    replies = (Reply("a", "one", 1.0), Reply("b", "two", 1.0))
    items = [Item(f"{number:032x}", 1, prompt, replies) for number in range(8)]
    now = datetime.datetime.now(datetime.UTC)
    made = feedback.open_round(
        store,
        Round(
            name="first", number=1, run="r", opened=now, files=(feedback.write_items(store, "items.parquet", items),)
        ),
    )
    arguments = ["freeze", "--store", store.uri, "--round", "first"]
    assert main(arguments) == 65
    assert "no vote counts" in capsys.readouterr().err
    for item in items:
        for name, ranks in (("ann", (1, 2)), ("bob", (1, 2)), ("mal", (2, 1))):
            vote = Vote(round="first", item=item.id, annotator=name, showing=0, shown=(0, 1), ranks=ranks, when=now)
            feedback.cast(store, made, vote)
    assert main(arguments) == 0
    left_out, uri = capsys.readouterr().out.splitlines()
    assert left_out.startswith("left out: mal: agreement with the others 0%")
    assert len(feedback.read_frozen(uri)[2]) == 16
    assert main([*arguments, "--min-agreement", "0"]) == 0
    assert len(feedback.read_frozen(capsys.readouterr().out.strip())[2]) == 24
    assert main([*arguments, "--min-agreement", "7"]) == 78
    assert "freeze: min_agreement: Input should be less" in capsys.readouterr().err
