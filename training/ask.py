"""Lets any model answer a benchmark, outside of any run: `python -m training ask TASK --model M --items F --out ROWS`.

M is a folder of `transformers`, which brings its own tokenizer and chat template, or a result in a store, its folder
or its manifest.json: of pretrain, sft or a stage that aligns, or of a step of pretraining. The code is that of the
stage `benchmark`. For more than one process: `deepspeed --num_accelerators N --module training ask ...`.
"""

import argparse
import uuid
from collections.abc import Sequence
from pathlib import Path

from contract.errors import InputError, exit_code_of
from contract.manifest import read
from contract.metrics import Progress
from contract.store import Store
from evals.asking import add_asking, asking_of
from evals.grading import report, told
from evals.records import write_records
from evals.sandbox import require
from training.answering import Asked, answer
from training.benchmark import graded
from training.engine.ranks import Ranks, StopFlag, join
from training.engine.scratch import Scratch
from training.models.opened import RESULT, Opened, open_folder, open_result


def main(arguments: Sequence[str]) -> int:
    given = _parser().parse_args(arguments)
    stop = StopFlag().install()
    return exit_code_of(lambda: _ask(given, stop))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training ask", description=__doc__)
    add_asking(parser)
    parser.add_argument(
        "--model", required=True, help="folder of transformers, or URI of a result: STORE/STAGE/FINGERPRINT/all"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="a row for each output: JSONL, or Parquet if it ends so"
    )
    parser.add_argument("--by-byte", action="store_true", help="divide log-likelihoods by the bytes of their choices")
    parser.add_argument("--samples", type=int, default=1, help="outputs to each item")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: always the likeliest token")
    parser.add_argument("--max-tokens", type=int, default=256, help="of an output that is written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    return parser


def _ask(given: argparse.Namespace, stop: StopFlag) -> None:
    asking = asking_of(given)
    if asking.task.program:
        require()
    asked = Asked(given.samples, given.temperature, given.max_tokens, given.seed)
    ranks = join(stop)
    found = RESULT.fullmatch(given.model)
    scratch = Scratch(Store(found["store"] if found else "."), "ask", ranks.share(uuid.uuid4().hex), ranks.local_rank)
    with scratch.held():
        opened = _opened(given, scratch, ranks)
        progress = Progress("ask", asking.task.name, "items", len(asking.items))
        prompts = [asking.prompt(item) for item in asking.items]
        outputs = answer(opened.module, opened.wording, prompts, asked, ranks, advance=progress.advance)
        if ranks.rank == 0:
            progress.finish()
            records = graded(asking, outputs, given.by_byte)
            write_records(given.out, records)
            made = report(records, shots=asking.shots)
            print(*told(made), *(f"warning: {one}" for one in made.warnings), sep="\n", flush=True)
        ranks.leave()


def _opened(given: argparse.Namespace, scratch: Scratch, ranks: Ranks) -> Opened:
    found = RESULT.fullmatch(given.model)
    if found is None:
        return open_folder(scratch.fetch_all(given.model), given.model, "--model", given.dtype, ranks.device)
    try:
        made = read(scratch.store, found["prefix"])
    except FileNotFoundError:
        raise InputError(f"--model: {given.model} is not there") from None
    return open_result(scratch, made, given.dtype, ranks.device, ranks.rank)
