"""Every key is listed with its default and its docstring."""

from contract import plainyaml
from contract.recipe import DEFAULTS, load
from reports.keys import MOST_CHARS, keys


def test_every_key_is_listed_with_its_default_and_meaning():
    known = {one.name: one for one in keys()}
    assert len(known) == len(keys()) > 300
    assert known["filter.min_words"].default == "50"
    assert known["filter.min_words"].about.startswith("Drops a document if words < this, as too_few_words (Gopher")
    assert known["crawl.max_bytes_per_file"].about.startswith("Read only the first bytes of each file; the record")
    assert known["ppo.policy_optim.lr"].default == "1.0e-06"
    assert known["store"].default == "home/store"
    assert known["pretrain.engine.micro_batch"].about.startswith("Sequences that a process runs at once;")
    assert known["preferences.max_examples"].about.startswith("Read only so many usable examples.")  # inherited
    assert {one.name.partition(".")[0] for one in keys()} == {*type(DEFAULTS).model_fields}
    assert max(len(one.about) for one in keys()) <= MOST_CHARS


def test_every_default_may_be_written_as_an_override():
    lines = [f"{one.name}={one.default}" for one in keys() if one.name != "store"]
    assert load("tiny", lines).model_dump(exclude={"store"}) == DEFAULTS.model_dump(exclude={"store"})
    assert plainyaml.load(lines[0].partition("=")[2]) == "unnamed"
