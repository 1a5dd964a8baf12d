"""What lm-evaluation-harness asks, hears and finds of a model, and how long its backend for transformers takes. Run in its environment:

    python harness_answers.py REQUEST.json RESULT.json

REQUEST: {"model": folder, "threads", "batch_sizes": [...], "turns", "tasks": [{"name", "yaml": path in its folder of tasks, "rows": JSONL,
"shots": JSONL or null, "k", "max_tokens"}]}. Its tasks are its own files; only where their rows come from is changed. RESULT: {"seconds":
{kind: {batch size: least seconds}}, "samples": {task: [{"prompts", "until", "answers", "metrics": {filter: {metric: value}}}]}}.
"""

import json
import os
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}

import lm_eval
import torch
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

KINDS = ("loglikelihood", "generate_until")


def task_of(spec: dict[str, Any], cache: str) -> ConfigurableTask:
    config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / spec["yaml"])
    for key in (
        "tag",
        "group",
        "task_list",
        "dataset_name",
        "dataset_path",
        "training_split",
        "validation_split",
        "test_split",
    ):
        config.pop(key, None)
    files = {"test": spec["rows"]} | ({"shots": spec["shots"]} if spec["shots"] else {})
    config |= {
        "task": spec["name"],
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": cache},
        "test_split": "test",
    }
    fewshot = dict(config.get("fewshot_config") or {})
    config.pop("fewshot_split", None)
    if spec["shots"]:
        config["fewshot_split"] = "shots"
        config["fewshot_config"] = {"sampler": "first_n"}
    elif fewshot:
        config["fewshot_config"] = fewshot
    config["num_fewshot"] = spec["k"]
    if "generation_kwargs" in config:
        config["generation_kwargs"] = config["generation_kwargs"] | {"max_gen_toks": spec["max_tokens"]}
    return ConfigurableTask(config=config)


def timed(lm: HFLM, spent: dict[str, float]) -> None:
    """Let a model tell how long its answers take, from texts to numbers and texts."""
    for kind in KINDS:
        setattr(lm, kind, partial(_timed, getattr(lm, kind), kind, spent))


def _timed(usual: Any, kind: str, spent: dict[str, float], requests: Any, **given: Any) -> Any:
    start = time.perf_counter()
    found = usual(requests, **given)
    spent[kind] += time.perf_counter() - start
    return found


def sample(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The logged rows of one task, an item a row; filters are rows of their own in the log."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        given = [each[:2] for each in row["arguments"]]
        until = given[0][1]["until"] if isinstance(given[0][1], dict) else []
        prompts = [[context] if until else [context, text] for context, text in given]
        one = found.setdefault(row["doc_id"], {"prompts": prompts, "until": until, "metrics": {}})
        one["answers"] = [response[0] for response in row["resps"]]
        one["metrics"][row["filter"]] = {name: row[name] for name in row["metrics"]}
    return [found[number] for number in sorted(found)]


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(request["threads"])
    seconds: dict[str, dict[int, float]] = {kind: {} for kind in KINDS}
    samples: dict[str, Any] = {}
    for _ in range(request["turns"]):
        for size in request["batch_sizes"]:
            tasks = [task_of(one, f"{sys.argv[2]}.cache") for one in request["tasks"]]
            lm = HFLM(pretrained=request["model"], device="cpu", dtype="float32", batch_size=size)
            spent: dict[str, float] = defaultdict(float)
            timed(lm, spent)
            found = lm_eval.simple_evaluate(lm, tasks=tasks, bootstrap_iters=0, log_samples=True)
            for kind in KINDS:
                seconds[kind][size] = min(seconds[kind].get(size, float("inf")), spent[kind])
            print(f"harness, batch {size}: {dict(spent)}", file=sys.stderr, flush=True)
            samples = samples or {name: sample(rows) for name, rows in found["samples"].items()}
    Path(sys.argv[2]).write_text(json.dumps({"seconds": seconds, "samples": samples}))


if __name__ == "__main__":
    main()
