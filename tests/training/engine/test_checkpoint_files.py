"""Damage is told from files alone: a header that does not fit, a checksum that is another."""

import contextlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from contract.digest import file_digest
from contract.errors import DamagedError
from training.engine.checkpoint_files import Shards, check_digests, header_fits, random_state, restore_random_state


def test_a_header_says_how_long_its_file_is(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(3), "b": torch.zeros(5)}, path, {"made": "here"})
    data = path.read_bytes()
    assert header_fits(path)
    for wrong in (
        data[:-1],
        data + b"1",
        b"",
        data[:7],
        bytes(8),
        data.replace(b"data_offsets", b"data_offsetz"),
        b"\xff" * 8 + data[8:],
        data[:8] + b"[" + data[9:],
        (2).to_bytes(8, "little") + b"[]",
    ):
        path.write_bytes(wrong)
        assert not header_fits(path), wrong


def test_shards_find_each_parameters_parts_in_whatever_file_they_lie(tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    save_file({"model/a/weight": torch.ones(2), "model/b/weight": torch.zeros(1)}, one)
    save_file({"model/a/exp_avg": torch.full((2,), 3.0)}, two)
    found = Shards([one, two]).tensors("model", "a")
    assert {part: value.tolist() for part, value in found.items()} == {"weight": [1, 1], "exp_avg": [3, 3]}
    with pytest.raises(KeyError, match="no c"):
        Shards([one, two]).tensors("model", "c")


def test_the_state_of_a_gpus_generator_is_kept_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cuda" not in random_state()
    restored: list[list[int]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.tensor([7]))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: restored.append(state.tolist()))
    states = random_state()
    restore_random_state(states)
    assert restored == [[7]]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    restore_random_state(states)
    assert restored == [[7]], "saved on a GPU, restored without one"


def test_each_process_reads_its_own_random_state_and_its_share_of_the_rest(tmp_path: Path) -> None:
    names = ["random-00000", "random-00001", "shard-00000", "shard-00001", "state"]
    for name in names:
        (tmp_path / name).write_text(name)
    committed = {name: file_digest(tmp_path / name) for name in names}
    readers = {"random-00000": 0, "random-00001": 1, "shard-00000": 0, "shard-00001": 1, "state": 0}
    for name, reader in readers.items():
        (tmp_path / name).write_text("another")
        for rank in range(2):
            mine = [one for one in names if "random" not in one or one.endswith(str(rank))]
            noticed = pytest.raises(DamagedError, match=rf"^{name}: its checksum does not match$")
            with noticed if rank == reader else contextlib.nullcontext():
                check_digests({one: tmp_path / one for one in mine}, committed, rank, 2)
        (tmp_path / name).write_text(name)
    check_digests({one: tmp_path / one for one in names}, committed, 0, 1)
    (tmp_path / "state").write_text("another")
    with pytest.raises(DamagedError):
        check_digests({one: tmp_path / one for one in names}, committed, 0, 1)


@pytest.mark.parametrize("halfway", [True, False])
def test_random_numbers_go_on_where_they_were(halfway: bool) -> None:
    """Also between two Gaussian numbers, of which Python and numpy make a pair at a time."""

    def draw() -> list[float]:
        return [random.gauss(0, 1), random.random(), *np.random.standard_normal(3), *torch.rand(2).tolist()]

    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    if halfway:
        random.gauss(0, 1)
        np.random.standard_normal()
    state = random_state()
    expected = draw()
    draw()
    restore_random_state(state)
    assert draw() == expected


def test_a_file_without_tensors_has_a_header_too(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({}, path)
    assert header_fits(path)
    path.write_bytes(path.read_bytes() + b"1")
    assert not header_fits(path)
