"""Next-token prediction on the packed corpus."""

import time
from typing import Any

import torch

from contract import results
from contract.kinds import Kind
from contract.metrics import Progress
from contract.settings.training import Pretrain
from evals.heldout import HeldOut, perplexity
from training.chat.template import Chat, open_chat
from training.data.reading import TokenData
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.extension import extendable
from training.engine.job import Job
from training.engine.metrics import Pace, flops_per_token, memory_bytes, mfu, peak_flops
from training.models import llama as model
from training.models.lm import best_of, finite, heldout_loss, heldout_text, learn, note_heldout


def run(job: Job) -> None:
    settings: Pretrain = job.settings
    chat = open_chat(job)
    train, heldout = TokenData(job, Kind.TOKENS, settings.seed), TokenData(job, Kind.HELDOUT_TOKENS)
    module = model.build(
        settings.model,
        chat.vocab_size,
        job.setting("pack.seq_len"),
        settings.seed,
        settings.engine.dtype,
        chat.end_of_text,
        chat.pad,
    )
    engine = Engine(job, module, settings.optim, settings.engine, settings.batch, settings.steps)

    engines = {"model": engine}
    step, state = checkpoint.restore(job, engines, lambda: extendable(job, settings.steps, settings.optim))
    if step == 0:
        before = _judge(job, engine, heldout, chat)
        state = {"seconds": 0.0, "tokens": 0, "before": before.loss if before else None}
        state, _ = note_heldout(job, 0, before, state)

    progress, pace = Progress(job.task.stage, job.task.partition, "steps", settings.steps, step), Pace()
    while step < settings.steps:
        began = time.perf_counter()
        batch = train.batch(step, settings.batch, job.ranks.rank, job.ranks.world)
        nll = learn(job, engine, batch)
        lr, norm = engine.lr, engine.step()
        step += 1
        job.curves.add_later(step, {"loss": nll / batch.count}, lr=lr, grad_norm=norm)
        logging = step % settings.engine.log_steps == 0
        if logging:
            job.curves.read(job.ranks)
        seconds = time.perf_counter() - began
        pace.add(batch.count, seconds)
        state = {**state, "seconds": state["seconds"] + seconds, "tokens": state["tokens"] + batch.count}
        if logging:
            _log(job, engine, step, pace.read(), state["tokens"], step * settings.batch / len(train))
        if job.ranks.rank == 0:
            progress.advance(1, _note(job))
        best = None
        if step < settings.steps and step % settings.eval_steps == 0:
            state, best = note_heldout(job, step, _judge(job, engine, heldout, chat), state)
        checkpoint.save_when_due(job, step, settings.steps, engines, state, best)

    checkpoint.save_last(job, step, engines, state)
    after = _judge(job, engine, heldout, chat)
    if job.ranks.rank == 0:
        progress.finish(f"held-out loss {after.loss:.3f}" if after else "")
    _finish(job, engine, chat, step, state, after)


def _finish(job: Job, engine: Engine, chat: Chat, step: int, state: dict[str, Any], after: HeldOut | None) -> None:
    """Commit the model with its figures. `after` is the held-out loss after the last step."""
    if after:
        finite(job, after.loss, "held-out loss is {} at the end")
        state, _ = note_heldout(job, step, after, state)
    folder = job.scratch.fresh(f"result-{job.ranks.rank}")
    model.save(engine.module, folder, chat.path, job.ranks.rank)
    figures = {**_quality(state["before"], after), **best_of(state), **_speed(job, engine, state)}
    job.commit(folder, results.Pretrain(**figures, extended_from=state.get("extended_from")))


def _log(job: Job, engine: Engine, step: int, rate: float, tokens: int, epochs: float) -> None:
    """Add what is logged every so many steps: speed, MFU on a device with a known peak, what was read, and memory."""
    figures = {"tokens_per_s": rate, "tokens": tokens, "epochs": epochs, "memory_bytes": memory_bytes(job.ranks)}
    if peak := _peak(job):
        figures["mfu"] = mfu(rate, _flops(job, engine), peak, job.ranks.world)
    job.curves.add(step, **figures)


def _note(job: Job) -> str:
    loss = job.curves.last("loss")
    return "" if loss is None else f"loss {loss:.3f}"


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


def _speed(job: Job, engine: Engine, state: dict[str, float]) -> dict[str, Any]:
    """Tokens and seconds of training over all attempts, and MFU on a device with a known peak; prints MFU's terms."""
    parameters = model.parameters(engine.module)
    rate = state["tokens"] / state["seconds"]
    figures = {"parameters": parameters, "tokens": state["tokens"], "seconds": state["seconds"], "tokens_per_s": rate}
    if peak := _peak(job):
        figures["mfu"] = mfu(rate, _flops(job, engine), peak, job.ranks.world)
        if job.ranks.rank == 0:
            print(
                f"MFU {figures['mfu']:.1%} = (6 N + 12 L d_model T) x tokens/s / peak; N {parameters:,}, "
                f"{rate:,.0f} tokens/s, peak {peak:.3g} FLOP/s x {job.ranks.world}",
                flush=True,
            )
    return figures


def _peak(job: Job) -> float | None:
    """The peak of this process's GPU in FLOP/s, if it has one and its peak is known."""
    return peak_flops(torch.cuda.get_device_name(job.ranks.device)) if job.ranks.device.type == "cuda" else None


def _flops(job: Job, engine: Engine) -> float:
    """FLOPs per token."""
    shape = job.settings.model
    return flops_per_token(model.parameters(engine.module), shape.layers, shape.d_model, job.setting("pack.seq_len"))
