"""Next-token prediction on the packed corpus."""

import time
from functools import partial
from typing import Any

import torch

from contract import results
from contract.kinds import Kind
from contract.metrics import Progress
from contract.mixture import Schedule, lengths, micro_batches, of_pretrain, told
from contract.settings.training import NEVER, Pretrain
from evals.heldout import HeldOut, perplexity, together
from training.chat.template import Chat, open_chat
from training.data.blanks import HeldOutRows, Infilling
from training.data.drawing import Draws
from training.data.reading import TokenData
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.extension import extendable
from training.engine.job import Job
from training.engine.metrics import Pace, flops_per_token, memory_bytes, mfu, peak_flops
from training.models import llama as model
from training.models import positions, vocabulary
from training.models.lm import best_of, finite, heldout_loss, heldout_text, learn, note_heldout
from training.models.sight import check_sight, check_sight_of_stages
from training.models.teacher import open_teacher


def run(job: Job) -> None:
    settings: Pretrain = job.settings
    chat = open_chat(job)
    draws, heldout = _data(job, chat)
    plan = draws.schedule
    module, old_rows = _build(job, chat)
    start = positions.of_model(module)
    engine, teacher = _engine(job, module, plan), open_teacher(job, chat)
    only_new_rows = vocabulary.OnlyNewRows(engine, old_rows, settings.new_rows_first)
    engines = {"model": engine}
    step, state = checkpoint.restore(job, engines, lambda: _extendable(job, plan))
    phase, judge = _enter(job, engine, start, plan, step), partial(_judge, job, engine, heldout, chat)
    progress, pace = Progress(job.task.stage, job.task.partition, "steps", plan.steps, step), Pace()
    job.curves.steps = plan.steps
    found, best = None, None
    with draws.stream(job.ranks, step) as batches:
        if step == 0:
            first = judge()
            before = together(first)
            state = {"seconds": 0.0, "waited": 0.0, "tokens": 0, "before": before.loss if before else None}
            state, _ = note_heldout(job, 0, first, state)
        while step < plan.steps:
            if plan.number(step) != phase:
                phase = _enter(job, engine, start, plan, step)
            only_new_rows.before(step)
            began = time.perf_counter()
            mine = next(batches)
            waited = time.perf_counter() - began
            batch = mine.counted(job.ranks)
            shares = learn(job, engine, batch, teacher)
            lr, norm = engine.lr, engine.step()
            step += 1
            job.curves.add_later(step, shares, lr=lr, grad_norm=norm)
            if logged := step % settings.engine.log_steps == 0:
                job.curves.read(job.ranks)
            seconds = time.perf_counter() - began
            pace.add(batch.count, seconds)
            added = {"seconds": seconds, "waited": waited, "tokens": batch.count}
            state |= {name: state[name] + value for name, value in added.items()}
            engine.report_skip(step, draws.rows(step - 1) if engine.skipped else ())
            if logged:
                _log(job, engine, step, pace.read(), state["tokens"], plan)
            if job.ranks.rank == 0:
                progress.advance(1, job.curves.note("loss"))
            found = judge() if step % settings.eval_steps == 0 else None
            state, best = note_heldout(job, step, found or {}, state)
            checkpoint.save_when_due(job, step, plan.steps, engines, state, best)

    checkpoint.save_last(job, step, engines, state, best)
    _finish(job, engine, found or judge(), chat, state, plan, progress)


def _finish(
    job: Job,
    engine: Engine,
    found: dict[str, HeldOut],
    chat: Chat,
    state: dict[str, Any],
    plan: Schedule,
    progress: Progress,
) -> None:
    """Commit the model with its figures. `found` maps each source to its held-out loss at the end."""
    after = together(found)
    if job.ranks.rank == 0:
        progress.finish(f"held-out loss {after.loss:.3f}" if after else "")
    if after:
        if job.settings.optim.give_up_after < NEVER:
            finite(job, after.loss, "held-out loss is {} at the end")
        if plan.steps % job.settings.eval_steps:  # else the loop has noted it, and the checkpoint has it
            state, _ = note_heldout(job, plan.steps, found, state)
    folder = job.scratch.fresh(f"result-{job.ranks.rank}")
    model.save(engine.module, folder, chat, job.ranks.rank, engine.weights())
    figures = _quality(job.settings, state["before"], found) | best_of(state)
    figures |= _speed(job, engine, state, plan) | _read(job, plan)
    figures |= engine.figures() | {"attention": model.attention_of(engine.module)}
    figures |= _extended(job, state.get("extended_from"), figures.get("best_step"))
    job.commit(folder, results.Pretrain(**figures))


def _extended(job: Job, source: str | None, best: int | None) -> dict[str, Any]:
    """Figures that name the checkpoints of another run that this run continues. Only process 0 knows the second."""
    kept = checkpoint.kept_at(job, best, source) if job.ranks.rank == 0 and best is not None else None
    return {"extended_from": source, "best_checkpoint": kept}


def _extendable(job: Job, plan: Schedule) -> list[str]:
    """The checkpoints of runs of another length that this one may go on from.

    With phases or a cap on epochs, what a step draws depends on the length, so there are none.
    """
    settings: Pretrain = job.settings
    if settings.phases or settings.mixture.max_epochs is not None:
        return []
    return extendable(job, plan.steps, settings.optim)


def _log(job: Job, engine: Engine, step: int, rate: float, tokens: int, plan: Schedule) -> None:
    """Add what is logged every so many steps: speed, MFU on a device with a known peak, what was read, and memory."""
    figures = {"tokens_per_s": rate, "tokens": tokens, "memory_bytes": memory_bytes(job.ranks)}
    figures |= {f"epochs/{source}": epochs for source, epochs in plan.epochs(step).items()}
    if peak := _peak(job):
        figures["mfu"] = mfu(rate, _flops(job, engine, plan), peak, job.ranks.world)
    job.curves.add(step, **figures)


def _build(job: Job, chat: Chat) -> tuple[Any, int]:
    """(The model before the first step, how many rows of its embeddings were there before it grew)."""
    settings: Pretrain = job.settings
    if settings.start_from:
        return vocabulary.started(job, chat)
    fresh = model.build(
        settings.model,
        chat.vocab_size,
        job.setting("pack.seq_len"),
        settings.seed,
        settings.engine.dtype,
        chat.end_of_text,
        chat.pad,
        settings.engine,
        job.ranks.world,
        settings.blanks.places if settings.objective == "blank_infilling" else 0,
    )
    return fresh, 0


def _engine(job: Job, module: Any, plan: Schedule) -> Engine:
    """The engine that trains a model. Raises InputError if a model that was brought sees what it must not."""
    settings: Pretrain = job.settings
    if settings.objective == "next_token":
        model.set_attention(job, module, settings.engine.dtype, settings.boundaries)
    late = settings.engine.stage_in_force == 3  # only the engine then has the weights
    if settings.start_from and settings.engine.pipeline_stages > 1:
        check_sight_of_stages(module, settings.boundaries)
    elif settings.start_from and not late:  # before layers are compiled for lengths that never come again
        check_sight(module.to(job.ranks.device), settings.boundaries, job.ranks.device)
    engine = Engine(job, module, settings.optim, settings.engine, settings.batch, plan.steps)
    if settings.start_from and late:
        check_sight(engine.module, settings.boundaries, job.ranks.device)
    return engine


def _data(job: Job, chat: Chat) -> tuple[Draws, TokenData | HeldOutRows]:
    """The rows to train on and those held out, both with blanks if that is the objective."""
    settings: Pretrain = job.settings
    text = TokenData(job, Kind.HELDOUT_TOKENS, job.setting("pack.seq_len"), settings.boundaries)
    if settings.objective == "next_token":
        return _draws(job), text
    infilling = Infilling(settings.blanks, settings.seed, boundaries=settings.boundaries, **chat.blanks())
    return _draws(job, infilling), HeldOutRows(text, infilling)


def _draws(job: Job, infilling: Infilling | None = None) -> Draws:
    """What the recipe's mixture and phases draw from the packed corpus; prints how much that is."""
    settings: Pretrain = job.settings
    seq_len = job.setting("pack.seq_len")
    phases = [length for length, _ in lengths(settings, seq_len)]
    data = {length: TokenData(job, Kind.TOKENS, length, settings.boundaries) for length in {seq_len, *phases}}
    plan = of_pretrain(settings, seq_len, data[seq_len].sources, {length: one.sources for length, one in data.items()})
    if job.ranks.rank == 0:
        print(*told(plan), sep="\n", flush=True)
    return Draws([data[length] for length in phases], plan, settings.seed, infilling)


def _enter(job: Job, engine: Engine, start: positions.Positions, plan: Schedule, step: int) -> int:
    """Set the model's positions and the rows of a step to those of its phase, wherever they were, and return it.

    With the first step of a phase the guard begins anew: other text or longer rows have other norms.
    """
    settings: Pretrain = job.settings
    phase = plan.number(step)
    if step and plan.number(step - 1) != phase:
        engine.guard.forget()
    seq_len = job.setting("pack.seq_len")
    _, rows = lengths(settings, seq_len)[phase]
    positions.turn(engine.module, positions.of_phases(start, settings.phases, seq_len)[phase])
    engine.resize(rows, micro_batches(settings, seq_len)[phase])
    return phase


def _judge(job: Job, engine: Engine, heldout: TokenData | HeldOutRows, chat: Chat) -> dict[str, HeldOut]:
    batches = heldout_text(job, heldout, job.settings.eval_sequences, engine.micro_batch)
    sources = list(heldout.sources)
    return heldout_loss(job, engine.module, batches, engine.micro_batch, chat.token_bytes(), sources)


def _quality(settings: Pretrain, before: float | None, found: dict[str, HeldOut]) -> dict[str, Any]:
    """Held-out figures for the manifest; None if nothing was held out.

    The nats of spans are fewer than those of whole texts, and say nothing about the bits that a text takes.
    """
    after = together(found)
    whole = settings.objective == "next_token"
    return {
        "objective": settings.objective,
        "heldout_perplexity_before": None if before is None else perplexity(before),
        "heldout_perplexity_after": after.perplexity if after else None,
        "heldout_loss_after": after.loss if after else None,
        "bits_per_byte": after.bits_per_byte if after and whole else None,
        "heldout_tokens": after.tokens if after else 0,
        "heldout_sources": {
            source: {"loss": one.loss, "bits_per_byte": one.bits_per_byte if whole else None, "tokens": one.tokens}
            for source, one in found.items()
        },
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
    parameters, active = engine.parameters, _active(job, engine)
    rate = state["tokens"] / state["seconds"]
    figures = {
        "parameters": parameters,
        "active_parameters": active,
        "tokens": state["tokens"],
        "seconds": state["seconds"],
        "reader_share": state["waited"] / state["seconds"],
        "tokens_per_s": rate,
    }
    if peak := _peak(job):
        figures["mfu"] = mfu(rate, _flops(job, engine, plan), peak, job.ranks.world)
        if job.ranks.rank == 0:
            print(
                f"MFU {figures['mfu']:.1%} = (6 N + 12 L d_model T) x tokens/s / peak; N {active:,}, "
                f"{rate:,.0f} tokens/s, peak {peak:.3g} FLOP/s x {job.ranks.world}",
                flush=True,
            )
    return figures


def _peak(job: Job) -> float | None:
    """The peak of this process's GPU in FLOP/s, if it has one and its peak is known."""
    return peak_flops(torch.cuda.get_device_name(job.ranks.device)) if job.ranks.device.type == "cuda" else None


def _flops(job: Job, engine: Engine, plan: Schedule) -> float:
    """FLOPs per token, with the mean length of the sequences of all phases."""
    shape: Any = engine.module.config
    seq_lens = [length for length, _ in lengths(job.settings, job.setting("pack.seq_len"))]
    seq_len = positions.mean_length([one.last - one.first for one in plan.stretches], seq_lens)
    return flops_per_token(_active(job, engine), shape.num_hidden_layers, shape.hidden_size, seq_len)


def _active(job: Job, engine: Engine) -> int:
    """The parameters that one token uses: all of them under tensor or pipeline parallelism, which take no experts."""
    return engine.parameters if job.ranks.group > 1 else model.active_parameters(engine.module)
