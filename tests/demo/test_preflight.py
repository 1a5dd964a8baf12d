"""A machine that lacks something is told what, in one line."""

import collections
import shutil
import subprocess

import pytest

from demo import preflight


def test_this_machine_is_fit():
    assert preflight.python_problem() is None
    assert preflight.java_problem() is None
    assert preflight.compiler_problem() is None


@pytest.mark.parametrize("version", [(3, 10), (3, 12), (2, 7)])
def test_wrong_python(version):
    found = preflight.python_problem(version)
    assert (
        found
        == f"this is Python {version[0]}.{version[1]}, 3.11 is needed; install it and run: make PYTHON=/path/to/python3.11 ..."
    )


def test_no_java():
    assert preflight.java_problem("no-such-java") == (
        "no Java was found: Spark needs Java 17; on Debian: apt-get install openjdk-17-jre-headless"
    )


@pytest.mark.parametrize(
    ("said", "fit"),
    [
        ('version "11.0.2"', False),
        ('version "1.8.0"', False),
        ('version "17"', True),
        ('version "21.0.1"', True),
        ("", False),
    ],
)
def test_java_versions(tmp_path, said, fit):
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk {said}' >&2\n")
    java.chmod(0o755)
    assert (preflight.java_problem(str(java)) is None) is fit


def test_full_disk(tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda at: usage(100 << 30, 99 << 30, 1 << 30))
    found = preflight.disk_problem(tmp_path / "not" / "yet", 2)
    assert (
        found
        == f"{tmp_path}: 1.0 GiB of disk are free, 2 GiB are needed; make room or choose another folder with WHERE=DIR"
    )


def test_runs_on_a_bare_python():
    """It comes before the installation, so it may import nothing that is installed."""
    done = subprocess.run(["python3.11", "-I", "-S", preflight.__file__], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
