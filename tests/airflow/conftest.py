"""A live standalone Airflow on its own port and in its own folder, a crawl of real English prose, and a recipe of seconds."""

import gzip
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any
from urllib.parse import quote

import pytest
import requests

from demo import rest, server
from gristmill_airflow.environment import create_pools, token

PAGES = 36
RECIPE = """\
name: mini
store: {folder}/store
spark: {{master: 'local[2]', driver_memory: 1g, shuffle_partitions: 2, conf: {{spark.ui.enabled: 'false'}}}}
crawl: {{source: {folder}/crawl, files_per_segment: 1, skip_curated_hosts: false}}
filter: {{gopher_repetition: {{enabled: false}}, c4: {{enabled: false}}, fineweb: {{enabled: false}}}}
mix: {{heldout_fraction: 0.2, shards: 1}}
tokenizer: {{vocab_size: 600}}
pack: {{seq_len: 96}}
pretrain:
  model: {{layers: 1, d_model: 32, heads: 2, kv_heads: 2, d_ff: 64}}
  engine: {{micro_batch: 4, checkpoint_steps: 10}}
  steps: 250
  batch: 4
  eval_sequences: 8
instructions: {{max_examples: 16}}
preferences: {{max_examples: 20}}
sft: {{engine: {{micro_batch: 4}}, epochs: 1, batch: 4, max_tokens: 64}}
reward: {{engine: {{micro_batch: 4}}, batch: 4, max_tokens: 64}}
gate: {{min_accuracy: 0.0, approval: true}}
ppo:
  steps: 2
  rollout_batch: 4
  minibatch: 4
  max_prompt_tokens: 48
  max_response_tokens: 16
  engine: {{micro_batch: 4}}
evaluate: {{sequences: 8, prompts: 4, max_response_tokens: 16, samples: 1}}
benchmark: {{models: [sft], tasks: {{mmlu: {{items: {folder}/mmlu.csv, k: 0}}}}}}
"""


def warc(pages: dict[str, str]) -> bytes:
    """A gzipped WARC file of response records, one gzip member each, as crawlers write them."""
    made = b""
    for number, (url, html) in enumerate(pages.items()):
        http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + html.encode()
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-03-05T10:00:00Z\r\n"
            f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012d}>\r\n"
            f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
        )
        made += gzip.compress(head.encode() + http + b"\r\n\r\n")
    return made


def prose() -> dict[str, str]:
    """Python's own language reference, whose topics come with every interpreter, as web pages."""
    longest = sorted(topics.items(), key=lambda item: -len(item[1]))[3 : 3 + PAGES]
    pages = {}
    for name, text in longest:
        paragraphs = [" ".join(one.split()) for one in re.split(r"\n\s*\n", text[:6000])]
        body = "".join(f"<p>{escape(one)}</p>" for one in paragraphs if len(one) > 40)
        pages[f"https://reference.example/{name}"] = (
            f"<html lang=en><head><title>{name}</title></head><body><article><h1>{name}</h1>{body}</article></body></html>"
        )
    return pages


@dataclass
class Live:
    """The running Airflow and what tests ask of it. Waiting fails loudly when its limit is over."""

    api: rest.Airflow
    folder: Path
    home: Path

    @property
    def recipe(self) -> str:
        return str(self.folder / "mini.yaml")

    def trigger(self, dag: str, conf: dict[str, Any], key: str | None = None) -> str:
        body = {"logical_date": None, "conf": {"recipe": self.recipe, **conf}, "partition_key": key}
        run: str = self.api.call("POST", f"dags/{dag}/dagRuns", body)["dag_run_id"]
        return run

    def state(self, dag: str, run: str) -> str:
        found: str = self.api.call("GET", f"dags/{dag}/dagRuns/{quote(run)}")["state"]
        return found

    def runs(self, dag: str, **query: Any) -> list[dict[str, Any]]:
        """Newest first."""
        found: list[dict[str, Any]] = self.api.call("GET", f"dags/{dag}/dagRuns", order_by="-run_after", **query)[
            "dag_runs"
        ]
        return found

    def tasks(self, dag: str, run: str) -> dict[tuple[str, int], dict[str, Any]]:
        found = self.api.call("GET", f"dags/{dag}/dagRuns/{quote(run)}/taskInstances", limit=200)
        return {(one["task_id"], one["map_index"]): one for one in found["task_instances"]}

    def log(self, dag: str, run: str, task: str, attempt: int = 1, index: int = -1) -> list[str]:
        path = f"dags/{dag}/dagRuns/{quote(run)}/taskInstances/{task}/logs/{attempt}"
        found = self.api.call("GET", path, map_index=index, full_content=True)
        return [one["event"] for one in found["content"]]

    def xcom(self, dag: str, run: str, task: str) -> Any:
        path = f"dags/{dag}/dagRuns/{quote(run)}/taskInstances/{task}/xcomEntries/return_value"
        return self.api.call("GET", path)["value"]

    def page(self, address: str) -> str:
        """What a page of the plugin answers to whoever is logged in."""
        bearer = token(self.home, int(self.api.url.rpartition(":")[2]))
        answer = requests.get(f"{self.api.url}{address}", headers={"Authorization": f"Bearer {bearer}"}, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.text

    def clear(self, dag: str, run: str, **which: Any) -> int:
        body = {"dag_run_id": run, "reset_dag_runs": True, "dry_run": False, "include_downstream": True, **which}
        count: int = self.api.call("POST", f"dags/{dag}/clearTaskInstances", body)["total_entries"]
        return count

    def wait(self, what: str, condition: Callable[[], Any], limit_s: float = 120, every_s: float = 0.5) -> Any:
        deadline = time.monotonic() + limit_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"after {limit_s} s still not: {what}{self.mismatches()}"
            time.sleep(every_s)
        return found

    def finished(self, dag: str, run: str, limit_s: float = 120) -> str:
        """The final state of a run."""
        try:
            self.wait(f"{dag} {run} has ended", lambda: self.state(dag, run) in ("success", "failed"), limit_s)
        except AssertionError as error:
            states = {name: (one["state"], one["try_number"]) for (name, _), one in self.tasks(dag, run).items()}
            raise AssertionError(f"{error}; states and attempts: {states}") from None
        return self.state(dag, run)

    def failures(self, dag: str, run: str) -> str:
        """The end of the log of each task that failed."""
        failed = [(name, one) for (name, _), one in self.tasks(dag, run).items() if one["state"] == "failed"]
        ends = {name: self.log(dag, run, name, one["try_number"], one["map_index"])[-15:] for name, one in failed}
        return "\n".join(f"{name}: {line}" for name, lines in ends.items() for line in lines)

    def ended(self, dag: str, run: str, task: str) -> bool:
        """Whether the scheduler knows that the first attempt's process has ended well, even if the task waits for an answer."""
        event = f"Received executor event with state success for task instance TaskInstanceKey(dag_id='{dag}', task_id='{task}', "
        return f"{event}run_id='{run}', try_number=1, " in (self.folder / "airflow.log").read_text()

    def mismatches(self) -> str:
        """What Airflow noted of tasks whose state changed behind its back."""
        found = self.api.call("GET", "eventLogs", event="state mismatch")["event_logs"]
        return "".join(f"; {one['task_id']}: {one['extra']}" for one in found)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One Airflow for all tests of this folder."""
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "mini.yaml").write_text(RECIPE.format(folder=folder))
    (folder / "mmlu.csv").write_text("Which letter comes first?,a,b,c,d,A\nAnd last of these?,a,b,c,d,D\n")
    (folder / "crawl").mkdir()
    pages = list(prose().items())
    for index in range(2):
        (folder / "crawl" / f"part-{index}.warc.gz").write_bytes(warc(dict(pages[index::2])))
    port = next(one for one in range(19300, 20000) if server.is_free(one))  # below those that the system hands out
    started = server.start(folder, port)
    try:
        create_pools(started.home, port)
        api = rest.Airflow(started.url, lambda: token(started.home, port))
        alive = Live(api, folder, started.home)
        files = {file.stem for file in (Path(__file__).parents[2] / "dags").glob("*.py")}
        alive.wait("all DAGs are read", lambda: {one["dag_id"] for one in api.call("GET", "dags")["dags"]} == files)
        yield alive
    finally:
        server.stop(folder)
