"""`python -m reports serve`: a real server on loopback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests

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
