"""The bench finds what it looks for: take one safeguard away, and it says what is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest

from contract.manifest import Attempt
from contract.store import Store
from perf import lossless


@pytest.fixture
def wrong(tmp_path: Path) -> Callable[[str], list[str]]:
    """`wrong("answer of NFS")`: what the faults of a kind lose or double."""
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    (tmp_path / "recipe.yaml").write_text(f"{{store: {tmp_path}/store, crawl: {{source: {tmp_path}/crawl}}}}")

    def run(kind: str) -> list[str]:
        chosen = [fault for name, fault in lossless.faults(25) if name == kind]
        assert chosen
        cases = [lossless.new_case(tmp_path, number) for number in range(len(chosen))]
        said = [lossless.judge(case, fault) for case, fault in zip(cases, chosen, strict=True)]
        assert any(case.struck for case in cases)
        return [one for one in said if one]

    return run


@pytest.mark.parametrize("kind", ["answer of NFS", "file cut", "gc beside a sleeping attempt", "killed writer"])
def test_nothing_is_lost(wrong: Callable[[str], list[str]], kind: str) -> None:
    assert wrong(kind) == []


@pytest.mark.parametrize("kind", ["file cut", "gc beside a sleeping attempt"])
def test_without_comparing_sizes_much_is_lost(
    wrong: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(Attempt, "_compare", lambda *_: None)
    assert len(wrong(kind)) >= 2


def test_a_rival_that_replaces_a_result_is_told(
    wrong: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def overwriting(store: Store, path: str, data: bytes) -> bool:
        store.write_bytes(path, data)
        return True

    monkeypatch.setattr(Store, "create", overwriting)
    assert "another result was told before" in wrong("faster rival")
