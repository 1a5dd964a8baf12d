"""Chat templates from files: what is read, and what is refused before a run starts."""

import json
from pathlib import Path

import pytest

from contract.chat import TEMPLATES
from contract.chat_template import read_template, syntax_error
from contract.errors import InputError

PLAIN = "{% for message in messages %}{{ message['content'] }}{% if loop.last %}{% break %}{% endif %}{% endfor %}"


def test_the_well_known_ones_are_templates() -> None:
    assert {name: syntax_error(text) for name, text in TEMPLATES.items()} == dict.fromkeys(TEMPLATES, "")


def test_a_template_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.jinja").write_text(PLAIN)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": PLAIN}))
    for name in ("a.jinja", "tokenizer_config.json"):
        assert read_template(str(tmp_path / name)) == PLAIN
    assert read_template("zephyr") == TEMPLATES["zephyr"]
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(InputError, match=r"b.json: holds no text at the key chat_template"):
        read_template(str(tmp_path / "b.json"))
    (tmp_path / "c.json").write_text("[")
    with pytest.raises(InputError, match=r"c.json: is neither Jinja nor JSON"):
        read_template(str(tmp_path / "c.json"))
    both = [{"name": "rag", "template": "{{ 1 }}"}, {"name": "default", "template": PLAIN}]
    (tmp_path / "d.json").write_text(json.dumps({"chat_template": both}))
    assert read_template(str(tmp_path / "d.json")) == PLAIN
    for name, text, why in (
        ("e.json", json.dumps({"chat_template": both[:1]}), "holds no text at the key chat_template"),
        ("f.json", "[" * 100_000, "is neither Jinja nor JSON"),
        ("g.jinja", "a" * (1 << 20) + "b", "has more than 1,048,576 bytes"),
        ("i.jinja", "{{ 1 }}\n{% for %}", r"is no Jinja template \(line 2: Expected an expression"),
        ("j.jinja", "{% generation %}{{ 1 }}", r"is no Jinja template \(line 1: Unexpected end of template"),
        ("k.jinja", "{{ " + "(" * 50_000, r"is no Jinja template \("),
        ("h.jinja", "{{ strftime_now('%d %b %Y') }}", "asks for the date"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=f"{name}: {why}"):
            read_template(str(tmp_path / name))
    with pytest.raises(InputError, match=r"none.jinja: no such file; name a Jinja file, or one of chatml"):
        read_template(str(tmp_path / "none.jinja"))
