"""The benches of chats find no difference and no loss where there is none, and one where there is one."""

import json
from pathlib import Path

import pytest

from contract.conversation import Preference, Turn
from perf.align import cuts, templates
from perf.align.__main__ import names
from perf.bars import Bars
from training.chat import template
from training.chat.template import Chat

ASKED = "How does the mill turn? " * 20


def test_both_benches_are_run() -> None:
    assert {"cuts", "templates"} <= set(names())


def few(data: Path) -> None:
    """A few chats in each of the folders that the benches read."""
    for name in templates.FOLDERS:
        (data / name).mkdir(parents=True)
        rows = [{"instruction": f"{ASKED}{name} {at}", "output": "Slowly."} for at in range(2)]
        (data / name / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_ids_that_differ_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few(tmp_path)
    bars = Bars()
    templates.run(bars, tmp_path)
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == "BAR template_ids_equal 1 1 ok"
    assert shown[0] == "gristmill: 10 of 10 chats have the ids of apply_chat_template"
    encode = Chat.encode
    monkeypatch.setattr(
        Chat, "encode", lambda chat, *given: (encode(chat, *given)[0], [0]) if chat.template else ([], [])
    )
    templates.run(bars, tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == "BAR template_ids_equal 0.2 1 short", "of one no mask is told"


def test_a_cut_that_is_not_counted_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few(tmp_path)
    pairs = [Preference((Turn("user", f"{at} {ASKED}"),), "yes", "no") for at in range(cuts.PAIRS)]
    monkeypatch.setattr(cuts, "read_hh", lambda data: pairs)
    monkeypatch.setattr(cuts, "LIMITS", (48,))
    bars = Bars()
    cuts.run(bars, tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == "BAR truncations_uncounted 0 0 ok"
    kept = template.keep_turns
    monkeypatch.setattr(template, "keep_turns", lambda turns, room: (kept(turns, room)[0], frozenset()))
    cuts.run(bars, tmp_path)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "gristmill: of 10 chats 10, and of 400 pairs 400 lost in silence"
    assert shown[-1] == "BAR truncations_uncounted 410 0 short"
