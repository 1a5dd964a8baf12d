"""Sizes against numbers known from elsewhere: published models, and what was measured (perf/pretrain/estimate.py)."""

from dataclasses import replace

import pytest

from contract.settings.training import Dpo, Engine, Grpo, Lora, Model, Ppo, Pretrain, Reward, Sft
from contract.sizes import (
    BUCKET,
    LIVE,
    Memory,
    Work,
    activations,
    adapter_parameters,
    beside,
    cache_bytes,
    frozen,
    gradients,
    held,
    idle_parameters,
    logits_bytes,
    parameters,
    recomputed,
    refuse_absurd,
    reward_parameters,
    training_peak,
)

LLAMA_7B = Model(layers=32, d_model=4096, heads=32, kv_heads=32, d_ff=11008, tie_embeddings=False)
LLAMA_70B = Model(layers=80, d_model=8192, heads=64, kv_heads=8, d_ff=28672, tie_embeddings=False)
MIXTRAL_8X7B = Model(
    layers=32, d_model=4096, heads=32, kv_heads=8, d_ff=14336, tie_embeddings=False, experts=8, experts_per_token=2
)
BF16 = Engine(dtype="bf16", zero_stage=1)
WORK = Work(rows=1, length=2048, predicted=2048, accumulation=1)


def replaced(model: Model, **sizes: int) -> Model:
    return model.model_copy(update=sizes)


@pytest.mark.parametrize(
    ("model", "vocabulary", "count"),
    [
        (LLAMA_7B, 32_000, 6_738_415_616),
        (LLAMA_70B, 32_000, 68_976_648_192),
        (Model(), 32_000, 109_529_856),
        (MIXTRAL_8X7B, 32_000, 46_702_792_704),
    ],
)
def test_parameters_are_the_published_ones(model: Model, vocabulary: int, count: int) -> None:
    assert parameters(model, vocabulary) == count


def test_a_token_goes_through_two_of_eight_experts() -> None:
    assert parameters(MIXTRAL_8X7B, 32_000) - idle_parameters(MIXTRAL_8X7B) == 12_879_925_248  # "12.9 B active"
    assert idle_parameters(LLAMA_7B) == 0
    assert idle_parameters(replaced(MIXTRAL_8X7B, experts_per_token=8)) == 0


def test_activations_grow_with_the_experts_of_a_token_and_not_with_their_number() -> None:
    dense = replaced(MIXTRAL_8X7B, experts=0)
    one, two = (activations(replaced(MIXTRAL_8X7B, experts_per_token=count), BF16, WORK) for count in (1, 2))
    each = 32 * 2048 * 2 * (4 * 14_336 + 2 * 4096)  # four numbers of d_ff, and its copies of its input and output
    assert two - one == each
    assert one - activations(dense, BF16, WORK) == 32 * 2048 * 2 * 2 * 4096
    assert activations(replaced(MIXTRAL_8X7B, experts=64), BF16, WORK) == two
    again = replace(WORK)
    saving = Engine(dtype="bf16", zero_stage=1, activation_checkpointing=True)
    passing = recomputed(MIXTRAL_8X7B, saving, again) - recomputed(dense, saving, again)
    assert passing == each / 32 + 2048 * 2 * (3 * 14_336 + 2 * 4096), "one layer's, and the gradients that pass it"


def test_a_reward_model_has_a_head_for_one_number_instead_of_an_unembedding() -> None:
    assert reward_parameters(LLAMA_7B, 32_000) == 6_738_415_616 - 32_000 * 4096 + 4097
    assert reward_parameters(Model(), 32_000) == 109_529_856 + 769


def test_the_adapters_of_a_7b_model_have_the_published_number() -> None:
    """peft prints 4,194,304 for LLaMA 7B with rank 8 on queries and values, which is what its examples show."""
    assert adapter_parameters(LLAMA_7B, Lora(enabled=True, rank=8, targets=("q_proj", "v_proj"))) == 4_194_304
    assert adapter_parameters(LLAMA_7B, Lora(enabled=True, rank=16)) == 39_976_960
    assert adapter_parameters(LLAMA_7B, Lora()) == 0
    assert adapter_parameters(MIXTRAL_8X7B, Lora(enabled=True, rank=1)) == 32 * (2 * 8192 + 2 * (4096 + 1024))


def test_a_model_too_large_to_learn_may_carry_adapters() -> None:
    engine = Engine(dtype="bf16", zero_stage=2, micro_batch=1)
    with pytest.raises(ValueError, match="GB in sft"):
        refuse_absurd("sft", Sft(engine=engine), LLAMA_70B, 32_000, engine, 0)
    refuse_absurd("sft", Sft(engine=engine, lora=Lora(enabled=True)), LLAMA_70B, 32_000, engine, 0)
    larger, alone = replaced(LLAMA_70B, layers=160), Engine(micro_batch=1)
    with pytest.raises(ValueError, match="GB in sft"):
        refuse_absurd("sft", Sft(lora=Lora(enabled=True)), larger, 32_000, alone, 0)
    refuse_absurd("sft", Sft(lora=Lora(enabled=True, quantised=True)), larger, 32_000, alone, 0)


def test_sixteen_bytes_a_parameter_are_sharded_as_the_stage_says() -> None:
    count = 1_000_000

    def bytes_of(**engine: object) -> tuple[float, float, float]:
        settings = Engine(dtype="bf16", processes=4, **engine)
        both = held(count, settings)
        return both.weights / count, both.optimizer / count, gradients(count, settings).gradients / count

    assert bytes_of(zero_stage=1) == (2, 12 / 4, 4)
    assert bytes_of(zero_stage=2) == (2, 12 / 4, 4 / 4)
    assert bytes_of(zero_stage=3) == (2 / 4 + 2, 12 / 4, 4 / 4)  # a small model stays gathered
    alone = Engine()
    assert (held(count, alone).weights, held(count, alone).optimizer) == (4 * count, 8 * count)


def test_zero_3_keeps_only_so_many_weights_gathered() -> None:
    count = 10 * LIVE
    assert held(count, Engine(dtype="bf16", zero_stage=3, processes=100)).weights == 2 * count / 100 + 2 * LIVE


def test_processes_that_share_a_model_hold_their_part_of_it_and_zero_shares_that_between_the_copies() -> None:
    engine = Engine(processes=8, tensor_parallel=4, zero_stage=2)
    both = held(8000, engine)
    assert (both.weights, both.optimizer) == (4 * 2000, 2000 * 12 / 2)
    assert gradients(8000, engine).gradients == 4 * 2000 / 2
    alone = Engine(processes=8, pipeline_stages=8)
    assert (held(8000, alone).weights, gradients(8000, alone).gradients) == (4 * 1000, 4 * 1000)


def test_offloading_moves_the_optimizer_and_the_gradients_to_the_host() -> None:
    engine = Engine(dtype="bf16", zero_stage=2, processes=2, offload_optimizer=True)
    both = held(1000, engine)
    assert (both.optimizer, both.host, gradients(1000, engine).gradients) == (0, 500 * (12 + 4) + 500 * 12, 0)
    assert both.total == both.weights == 2000


def test_offloading_the_weights_leaves_what_is_gathered_on_the_device() -> None:
    count = 10 * LIVE
    only = held(count, Engine(dtype="bf16", zero_stage=3, processes=4, offload_parameters=True))
    assert (only.weights, only.host) == (2 * LIVE, (2 + 12) * count / 4)
    assert (only.optimizer, only.gradients) == (12 * count / 4, 4 * count / 4)
    both = held(count, Engine(dtype="fp16", zero_stage=3, processes=4, offload_parameters=True, offload_optimizer=True))
    assert (both.total, both.host) == (2 * LIVE, (2 + 12 + 4 + 12) * count / 4)


def test_the_host_holds_each_process_share_of_a_checkpoint_until_it_is_uploaded() -> None:
    assert held(1000, Engine()).host == 12 * 1000
    assert held(1000, Engine(dtype="bf16", zero_stage=2, processes=4)).host == 12 * 250
    assert frozen(1000, Engine()).host == 0


def test_a_model_of_174_billion_is_taken_by_one_process_that_offloads_all_of_it() -> None:
    gpt3 = Model(layers=96, d_model=12288, heads=96, kv_heads=96, d_ff=32768, tie_embeddings=False)
    assert 174e9 < parameters(gpt3, 32_000) < 175e9
    engine = Engine(dtype="bf16", zero_stage=3, offload_parameters=True, offload_optimizer=True, micro_batch=1)
    refuse_absurd("sft", Sft(), gpt3, 32_000, engine, 0)
    peak = training_peak(gpt3, parameters(gpt3, 32_000), 32_000, engine, replace(WORK, length=64), cuda=True)
    assert peak.total < 20e9
    with pytest.raises(ValueError, match="GB in sft"):
        refuse_absurd("sft", Sft(), gpt3, 32_000, engine.model_copy(update={"offload_optimizer": False}), 0)
    with pytest.raises(ValueError, match="GB in sft"):
        refuse_absurd("sft", Sft(), gpt3, 32_000, engine.model_copy(update={"offload_parameters": False}), 0)


@pytest.mark.parametrize(
    ("engine", "stage"),
    [
        (Engine(), 0),
        (Engine(dtype="bf16"), 2),
        (Engine(dtype="fp16"), 2),
        (Engine(offload_optimizer=True), 2),
        (Engine(dtype="bf16", zero_stage=1), 1),
        (Engine(zero_stage=3), 3),
    ],
)
def test_what_half_precision_and_offloading_hold_is_that_of_the_stage_in_force(engine: Engine, stage: int) -> None:
    alike = engine.model_copy(update={"zero_stage": stage})
    assert (held(1000, engine), gradients(1000, engine)) == (held(1000, alike), gradients(1000, alike))
    assert f"with ZeRO stage {stage};" in _refused(engine)


def _refused(engine: Engine) -> str:
    huge = Model(layers=1000, d_model=1 << 17, heads=128, kv_heads=128, d_ff=1 << 19)
    with pytest.raises(ValueError, match="GB in sft") as refused:
        refuse_absurd("sft", Sft(), huge, 32_000, engine, 0)
    return str(refused.value)


def test_whole_logits_of_a_large_vocabulary_take_gigabytes_and_a_part_of_them_does_not() -> None:
    """Four fp32 copies: 17 GB at micro-batch 16, 2,048 tokens and 32,000 entries."""
    work = Work(rows=16, length=2048, predicted=2048, accumulation=1)
    whole = replace(work, whole=True)
    assert logits_bytes(Model(), 32_000, BF16, whole, cuda=True) == 16 * 2048 * 32_000 * 4 * 4
    gradients = 4 * 32_000 * 768 + 2 * 16 * 2048 * 768
    on_gpu, tokens = logits_bytes(Model(), 32_000, BF16, work, cuda=True), (1 << 28) // 32_000
    assert on_gpu == 10 * 32_000 * tokens + gradients < 3e9
    alone = Engine()
    assert logits_bytes(Model(), 32_000, alone, work, cuda=False) == (
        8 * 32_000 * ((1 << 24) // 32_000) + 4 * 32_000 * 768 + 4 * 16 * 2048 * 768
    )
    few = replace(work, rows=1, predicted=8)
    assert logits_bytes(Model(), 32_000, alone, few, cuda=True) == 8 * 32_000 * 8 + 4 * 32_000 * 768 + 4 * 8 * 768
    assert logits_bytes(Model(), 32_000, alone, replace(work, predicted=0), cuda=True) == 0


def test_activations_of_a_layer() -> None:
    model = Model(layers=3, d_model=64, heads=4, kv_heads=2, d_ff=100)
    layer = 8 * 64 + 2 * 32 + 4 * 100 + 4
    assert activations(model, Engine(), WORK) == 2048 * 4 * (3 * layer + 3 * 64)
    half = 2 * 64 * 8 + 2 * (2 * 64 + 2 * 32 + 4 * 100) + 4 * 4
    assert activations(model, BF16, WORK) == 2048 * (3 * half + 8 * 64)


def test_a_mask_is_kept_in_every_layer_with_keys_and_values_of_all_heads() -> None:
    model = Model(layers=3, d_model=64, heads=4, kv_heads=2, d_ff=100)
    masked = replace(WORK, masked=True)
    more = 3 * 2 * (2048 * 2048 + 2048 * 2 * 32) + 2048 * 2048
    assert activations(model, BF16, masked) - activations(model, BF16, WORK) == more


def test_activation_checkpointing_keeps_the_layers_inputs_and_one_layer() -> None:
    model = Model(layers=3, d_model=64, heads=4, kv_heads=2, d_ff=100)
    engine = Engine(activation_checkpointing=True)
    layer = 4 * (8 * 64 + 2 * 32 + 4 * 100 + 4)
    assert activations(model, engine, WORK) == 2048 * (3 * 4 * 64 + 12 * 64)
    assert recomputed(model, engine, WORK) == 2048 * (3 * 4 * 64 + layer + 3 * 4 * 100)
    assert recomputed(model, Engine(), WORK) == 0


def test_offloaded_activations_wait_in_main_memory_but_for_one_layer() -> None:
    model = Model(layers=3, d_model=64, heads=4, kv_heads=2, d_ff=100)
    kept, moved = (Engine(activation_checkpointing=True, offload_activations=moved) for moved in (False, True))
    for measure in (activations, recomputed):
        assert measure(model, kept, WORK) - measure(model, moved, WORK) == 2048 * 2 * 4 * 64
    peaks = [training_peak(model, 1000, 50, one, WORK, cuda=False) for one in (kept, moved)]
    assert peaks[1].host - peaks[0].host == 2048 * 3 * 4 * 64
    assert peaks[0].total > peaks[1].total


def test_the_cache_of_a_7b_model_takes_half_a_mebibyte_a_token() -> None:
    assert cache_bytes(LLAMA_7B, BF16, rows=1, length=1) == 1 << 19
    assert cache_bytes(LLAMA_70B, BF16, rows=2, length=3) == 6 * 2 * 2 * 80 * 8 * 128


def test_the_fullest_moment_is_the_loss_where_batches_are_large_and_the_reduction_where_models_are() -> None:
    wide = Work(rows=64, length=2048, predicted=2048, accumulation=1)
    count = parameters(Model(), 32_000)
    at_loss = training_peak(Model(), count, 32_000, Engine(), wide, cuda=False)
    assert at_loss.logits == logits_bytes(Model(), 32_000, Engine(), wide, cuda=False)
    assert (at_loss.gradients, at_loss.buffers) == (0, 0)
    short = Work(rows=1, length=8, predicted=8, accumulation=1)
    at_end = training_peak(Model(), count, 32_000, Engine(), short, cuda=False)
    assert at_end == Memory(4 * count, 4 * count, 8 * count, buffers=4 * count, host=12 * count)


def test_gradients_wait_from_one_micro_batch_to_the_next() -> None:
    wide = Work(rows=64, length=2048, predicted=2048, accumulation=2)
    count = parameters(Model(), 32_000)
    assert training_peak(Model(), count, 32_000, Engine(), wide, cuda=False).gradients == 4 * count


def test_cuda_gets_whole_buckets() -> None:
    short = Work(rows=1, length=8, predicted=8, accumulation=1)
    engine = Engine(dtype="bf16", zero_stage=1)
    assert training_peak(Model(), 1000, 32_000, engine, short, cuda=True).buffers == 2 * BUCKET
    assert training_peak(Model(), 1000, 32_000, engine, short, cuda=False).buffers == 0  # fuller when the loss is known


def test_parts_add_up() -> None:
    one = Memory(1, 2, 3, 4, 5, 6, 7, host=100)
    assert one.total == 28
    assert one + one == Memory(2, 4, 6, 8, 10, 12, 14, host=200)
    assert frozen(10, BF16).total == 20


def test_a_model_that_no_accelerator_holds_is_refused_with_its_numbers() -> None:
    with pytest.raises(ValueError, match=r"^pretrain.model") as refused:
        refuse_absurd("sft", Sft(), LLAMA_70B, 32_000, Engine(dtype="bf16", zero_stage=1), 0)
    assert str(refused.value) == (
        "pretrain.model: its 68,976,648,192 parameters take 966 GB in sft, on each of 1 processes with ZeRO stage 1; "
        "no accelerator has more than 288 GB; raise sft.engine.zero_stage or .processes, set "
        ".offload_optimizer, or make the model smaller"
    )


def test_the_same_model_is_taken_where_it_is_sharded() -> None:
    refuse_absurd("sft", Sft(), LLAMA_70B, 32_000, Engine(dtype="bf16", zero_stage=3, processes=64), 0)


def test_ppo_needs_four_models() -> None:
    """16 GB a billion parameters and two times: 13 billion fit an accelerator once, not as PPO's four."""
    llama_13b = Model(layers=40, d_model=5120, heads=40, kv_heads=40, d_ff=13824, tie_embeddings=False)
    engine = Engine(dtype="bf16", zero_stage=2)
    refuse_absurd("reward", Reward(), llama_13b, 32_000, engine, 0)
    with pytest.raises(ValueError, match="GB in ppo"):
        refuse_absurd("ppo", Ppo(engine=engine), llama_13b, 32_000, engine, 0)
    lean = Ppo(engine=engine, critic="head", offload_frozen=True)
    refuse_absurd("ppo", lean, llama_13b, 32_000, engine, 0)
    assert beside(Dpo(), llama_13b, 32_000) == Memory()
    judge = reward_parameters(llama_13b, 32_000)
    assert beside(lean, llama_13b, 32_000).total == 2 * judge, "the decoder under the critic's head stays"
    of_groups = beside(Grpo(engine=engine), llama_13b, 32_000).total
    assert of_groups == 2 * (judge + parameters(llama_13b, 32_000)), "the two that only compute, and no critic"
    alone = Grpo(engine=engine, lora=Lora(enabled=True))
    assert beside(alone, llama_13b, 32_000).total == 2 * judge, "the policy without adapters is the reference"
    assert beside(alone.model_copy(update={"reward": "answers"}), llama_13b, 32_000) == Memory()


def test_a_micro_batch_that_no_accelerator_holds_is_refused() -> None:
    refuse_absurd("pretrain", Pretrain(), LLAMA_7B, 32_000, Engine(dtype="bf16", micro_batch=4), 2048)
    with pytest.raises(ValueError, match=r"^pretrain.engine.micro_batch: 64 sequences of 2,048 tokens take "):
        refuse_absurd("pretrain", Pretrain(), LLAMA_7B, 32_000, Engine(dtype="bf16", micro_batch=64), 2048)
