"""The report of an ablation is what was committed, from the recipe's own run and from the one that compares."""

from collections.abc import Callable
from pathlib import Path

import pytest

from contract import ablation
from contract.manifest import Attempt, File
from contract.plan import Run
from reports import ablation as reports


def test_the_committed_page_is_shown(
    resolve_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    base = resolve_run(tmp_path / "crawl", {"ablate.variants": {"a": [], "b": ["pretrain.optim.lr=0.1"]}})
    made = ablation.resolve(base).comparison
    assert reports.main(["--recipe", base.uri]) != 0
    assert "run ablate first" in capsys.readouterr().err
    attempt = Attempt(made, made.task("ablate"))
    files = []
    for name, data in (("ablation.json", b"{}"), ("ablation.md", b"# Ablation\n\n**a is \x1bbetter**\n")):
        made.store.write_bytes(attempt.path(name), data)
        files.append(File(path=attempt.path(name), kind="comparison", bytes=len(data)))
    attempt.commit(files)
    for run in (base, made):
        assert reports.main(["--recipe", run.uri]) == 0
        assert capsys.readouterr().out.startswith("# Ablation\n\n**a is ")
    assert reports.main(["--recipe", base.uri, "--output", str(tmp_path / "page.md")]) == 0
    assert "\x1b" not in (tmp_path / "page.md").read_text()
