"""Next-token prediction on the packed corpus."""

import time
from typing import Any

import torch
from transformers import LlamaForCausalLM

from contract import results
from contract.kinds import Kind
from contract.metrics import Progress
from contract.mixture import Schedule, lengths, of_pretrain, told
from contract.settings.training import Pretrain
from evals.heldout import HeldOut, perplexity
from training.chat.template import Chat, open_chat
from training.data.drawing import Draws
from training.data.reading import TokenData
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.job import Job
from training.engine.metrics import flops_per_token, mfu, peak_flops
from training.models import llama as model
from training.models import positions, vocabulary
from training.models.lm import batch_loss, finite, heldout_loss, heldout_text, learn


def run(job: Job) -> None:
    settings: Pretrain = job.settings
    chat = open_chat(job)
    draws, seq_len = _draws(job), job.setting("pack.seq_len")
    heldout = TokenData(job, Kind.HELDOUT_TOKENS, seq_len, settings.boundaries)
    plan = draws.schedule
    module, old_rows = vocabulary.started(job, chat) if settings.start_from else (_fresh(job, chat), 0)
    start = positions.of_model(module)
    engine = Engine(job, module, settings.optim, settings.engine, settings.batch, plan.steps)
    only_new_rows = vocabulary.OnlyNewRows(engine, old_rows, settings.new_rows_first)

    step, state = checkpoint.restore(job, {"model": engine})
    phase = _enter(job, engine, start, plan.number(step))
    progress = Progress(job.task.stage, job.task.partition, "steps", plan.steps, step)
    with draws.stream(job.ranks, step) as batches:
        if step == 0:
            before = _judge(job, engine, heldout, chat)
            state = {"seconds": 0.0, "waited": 0.0, "tokens": 0, "before": before.loss if before else None}
            if before:
                job.curves.add(0, heldout_loss=before.loss)
        while step < plan.steps:
            if plan.number(step) != phase:
                phase = _enter(job, engine, start, plan.number(step))
            only_new_rows.before(step)
            began = time.perf_counter()
            mine = next(batches)
            waited = time.perf_counter() - began
            batch = mine.counted(job.ranks)
            nll = learn(job, engine, batch)
            lr = engine.lr
            loss = batch_loss(job, step + 1, nll, batch)
            norm = engine.step()
            step += 1
            seconds = time.perf_counter() - began
            added = {"seconds": seconds, "waited": waited, "tokens": batch.count}
            state |= {name: state[name] + value for name, value in added.items()}
            job.curves.add(step, loss=loss, lr=lr, grad_norm=norm, tokens_per_s=batch.count / seconds)
            if job.ranks.rank == 0:
                progress.advance(1, f"loss {loss:.3f}")
            checkpoint.save_when_due(job, step, plan.steps, {"model": engine}, state)

    _finish(job, engine, heldout, chat, state, plan, progress)


def _finish(
    job: Job, engine: Engine, heldout: TokenData, chat: Chat, state: dict[str, Any], plan: Schedule, progress: Progress
) -> None:
    """Judge the model after the last step, and commit it with the figures of the whole training."""
    after = _judge(job, engine, heldout, chat)
    if job.ranks.rank == 0:
        progress.finish(f"held-out loss {after.loss:.3f}" if after else "")
    if after:
        finite(job, after.loss, "held-out loss is {} at the end")
        job.curves.add(plan.steps, heldout_loss=after.loss)
    folder = job.scratch.fresh(f"result-{job.ranks.rank}")
    model.save(engine.module, folder, chat, job.ranks.rank)
    figures = _quality(state["before"], after) | _speed(job, engine, state, plan) | _read(job, plan)
    job.commit(folder, results.Pretrain(**figures))


def _draws(job: Job) -> Draws:
    """What the recipe's mixture and phases draw from the packed corpus; prints how much that is."""
    settings: Pretrain = job.settings
    seq_len = job.setting("pack.seq_len")
    phases = [length for length, _ in lengths(settings, seq_len)]
    data = {length: TokenData(job, Kind.TOKENS, length, settings.boundaries) for length in {seq_len, *phases}}
    plan = of_pretrain(settings, seq_len, data[seq_len].sources, {length: one.sources for length, one in data.items()})
    if job.ranks.rank == 0:
        print(*told(plan), sep="\n", flush=True)
    return Draws([data[length] for length in phases], plan, settings.seed)


def _enter(job: Job, engine: Engine, start: positions.Positions, phase: int) -> int:
    """Set the model's positions and the rows of a step to those of a phase, wherever they were, and return it."""
    settings: Pretrain = job.settings
    seq_len = job.setting("pack.seq_len")
    own, rows = lengths(settings, seq_len)[phase]
    positions.turn(engine.module, positions.of_phases(start, settings.phases, seq_len)[phase])
    engine.resize(rows, positions.micro_batch(settings.engine.micro_batch, seq_len, own))
    return phase


def _fresh(job: Job, chat: Chat) -> LlamaForCausalLM:
    """The recipe's model, from random weights."""
    settings: Pretrain = job.settings
    return model.build(
        settings.model,
        chat.vocab_size,
        job.setting("pack.seq_len"),
        settings.seed,
        settings.engine.dtype,
        chat.end_of_text,
        chat.pad,
    )


def _judge(job: Job, engine: Engine, heldout: TokenData, chat: Chat) -> HeldOut | None:
    batches = heldout_text(job, heldout, job.settings.eval_sequences, engine.micro_batch)
    return heldout_loss(job, engine.module, batches, engine.micro_batch, chat.token_bytes())


def _quality(before: float | None, after: HeldOut | None) -> dict[str, Any]:
    """Held-out figures for the manifest; None if nothing was held out."""
    return {
        "heldout_perplexity_before": None if before is None else perplexity(before),
        "heldout_perplexity_after": after.perplexity if after else None,
        "heldout_loss_after": after.loss if after else None,
        "bits_per_byte": after.bits_per_byte if after else None,
        "heldout_tokens": after.tokens if after else 0,
    }


def _read(job: Job, plan: Schedule) -> dict[str, Any]:
    """What was drawn of each source, over all steps and in each phase."""
    epochs, tokens = plan.epochs(plan.steps), dict.fromkeys(plan.drawn(plan.steps), 0)
    for one, (length, _) in zip(plan.stretches, lengths(job.settings, job.setting("pack.seq_len")), strict=True):
        for source, count in one.drawn(one.last).items():
            tokens[source] += count * length
    return {
        "sources": {
            source: {"sequences": count, "tokens": tokens[source], "epochs": epochs[source]}
            for source, count in plan.drawn(plan.steps).items()
        },
        "phases": {f"steps {one.first} to {one.last}": dict(one.epochs()) for one in plan.stretches},
    }


def _speed(job: Job, engine: Engine, state: dict[str, float], plan: Schedule) -> dict[str, Any]:
    """Tokens and seconds of training over all attempts, and MFU on a device with a known peak; prints MFU's terms."""
    parameters = model.parameters(engine.module)
    rate = state["tokens"] / state["seconds"]
    figures = {
        "parameters": parameters,
        "tokens": state["tokens"],
        "seconds": state["seconds"],
        "reader_share": state["waited"] / state["seconds"],
        "tokens_per_s": rate,
    }
    peak = peak_flops(torch.cuda.get_device_name(job.ranks.device)) if job.ranks.device.type == "cuda" else None
    if peak:
        shape: Any = engine.module.config
        seq_lens = [length for length, _ in lengths(job.settings, job.setting("pack.seq_len"))]
        seq_len = positions.mean_length([one.last - one.first for one in plan.stretches], seq_lens)
        flops = flops_per_token(parameters, shape.num_hidden_layers, shape.hidden_size, seq_len)
        figures["mfu"] = mfu(rate, flops, peak, job.ranks.world)
        if job.ranks.rank == 0:
            print(
                f"MFU {figures['mfu']:.1%} = (6 N + 12 L d_model T) x tokens/s / peak; N {parameters:,}, "
                f"{rate:,.0f} tokens/s, peak {peak:.3g} FLOP/s x {job.ranks.world}",
                flush=True,
            )
    return figures
