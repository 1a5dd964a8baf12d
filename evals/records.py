"""Result sets: what was asked, written, extracted and found of every output, as rows of JSONL or Parquet."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from contract.errors import InputError


@dataclass(frozen=True)
class Record:
    """One output. sample: its number among the item's. score: from 0 to 1. extracted: None where nothing was found.

    where: the file and the row that the item was read from.
    """

    task: str
    ability: str
    id: str
    source: str
    sample: int
    prompt: str
    output: str
    expected: str
    extracted: str | None
    score: float
    reward: float | None = None
    where: str = ""


@dataclass(frozen=True)
class Output:
    """What a model answered to an item: a text, or the log-likelihood of each choice. reward: a reward model's.

    whole: False if the text ended at the limit of tokens.
    """

    text: str = ""
    logprobs: tuple[float, ...] | None = None
    reward: float | None = None
    whole: bool = True


def read_outputs(path: Path) -> dict[str, list[Output]]:
    """Item id -> its outputs, from JSONL of {"id", "text"}, {"id", "texts": [...]} or {"id", "logprobs": [...]}.

    A text may have a "reward", and texts "rewards". Several lines of one id are several outputs. Raises InputError for
    anything else.
    """
    found: dict[str, list[Output]] = {}
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            several = _outputs(row)
            found.setdefault(str(row["id"]), []).extend(several)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path}:{number}: is no output ({error}); "
                'a line is {"id": ..., "text": ...}, or has "texts" or "logprobs" instead of "text"'
            ) from None
    return found


def _outputs(row: Mapping[str, Any]) -> list[Output]:
    if "logprobs" in row:
        return [Output(logprobs=tuple(map(float, row["logprobs"])))]
    texts = row["texts"] if "texts" in row else [row["text"]]
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise ValueError("its text is no string")
    rewards = row["rewards"] if "rewards" in row else [row.get("reward")] * len(texts)
    if len(rewards) != len(texts):
        raise ValueError("it has not as many rewards as texts")
    return [Output(text, reward=None if one is None else float(one)) for text, one in zip(texts, rewards, strict=True)]


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write a result set, as Parquet where the path ends so, else as JSONL. Raises InputError if it cannot."""
    rows = [{key: _encodable(value) for key, value in asdict(one).items()} for one in records]
    try:
        if path.suffix == ".parquet":
            _write_parquet(path, rows)
        else:
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error}") from None


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"sample": pa.int32(), "score": pa.float64(), "reward": pa.float64()}
    schema = pa.schema([(one.name, kinds.get(one.name, pa.string())) for one in fields(Record)])
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path, compression="zstd")


def _encodable(value: Any) -> Any:
    """Without lone surrogates, which are not characters."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def read_records(path: Path) -> list[Record]:
    """A result set that `write_records` wrote. Raises InputError for anything else."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows = [*enumerate(pq.read_table(path).to_pylist())]
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read: {error}") from None
    else:
        rows = []
        for number, line in enumerate(_text(path).split("\n"), 1):
            if line.strip():
                try:
                    rows.append((number, json.loads(line)))
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path}:{number}: is not JSON: {error}") from None
    return [_record(path, number, row) for number, row in rows]


def _record(path: Path, number: int, row: Any) -> Record:
    try:
        given = [one.name for one in fields(Record) if one.name != "where" or "where" in row]  # older sets lack it
        made = Record(**{name: row[name] for name in given})
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}:{number}: is no row of a result set: it lacks {error}") from None
    if not isinstance(made.score, int | float) or not 0 <= made.score <= 1:
        raise InputError(f"{path}:{number}: its score {made.score!r} is not from 0 to 1")
    return made


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
