"""The figures that each stage commits besides its counts of documents, as one type per stage that has any.

A stage commits an instance; other stages, DAGs and commands read it back with `of`. Headlines name fields, and a test
checks that they exist. Numbers of documents kept and dropped are in `contract.manifest.Rows`; curves are files of kind
`metrics`.
"""

from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.errors import DamagedError

if TYPE_CHECKING:
    from contract.manifest import Manifest


class Result(BaseModel):
    """The figures of a stage that has none of its own, and the base of the others'."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of(cls, manifest: "Manifest") -> Self:
        """The figures in a manifest. Raises DamagedError if they are not of this type."""
        try:
            return cls.model_validate(manifest.metrics)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise DamagedError(
                f"{manifest.path}: its figure {key!r} is not one of {manifest.stage} ({first['msg']}); "
                f"delete it to run {manifest.stage} again"
            ) from error


class Crawl(Result):
    files: int
    parts: int
    """Pieces of crawl files that were read apart."""


class Extract(Result):
    extracted_twice: int
    """Pages on which trafilatura's fall-backs ran."""


class MinhashSign(Result):
    documents: int


class Curate(Result):
    sources: int


class DedupFuzzy(Result):
    clusters: int


class DedupSubstring(Result):
    spans: int
    tokens_cut: int
    documents_cut: int


class Decontaminate(Result):
    benchmark_ngrams: int
    documents_cut: int = 0
    documents_spared: int = 0
    """Documents that share text with a benchmark, but less than `min_coverage`."""


class Mix(Result):
    training_documents: int
    heldout_documents: int


class Examples(Result):
    """Of `instructions`, `preferences` and `prompts`."""

    data: str
    """`synthetic`, or the files or folders that were read."""
    training: int
    heldout: int
    shapes: dict[str, dict[str, int]] = {}
    """Shape -> `rows`: those that had it."""
    tasks: dict[str, dict[str, int]] = {}
    """Task -> `training` and `heldout`, of the MOST_TASKS largest; examples without a task are under an empty name."""


MOST_TASKS = 200
"""Tasks whose figures a manifest holds; FLAN's collection has 1,836, and a page shows fewer."""


class Tokenizer(Result):
    vocab_size: int
    sample_bytes: int
    sample_documents: int
    heldout_bytes_per_token: float | None
    heldout_tokens_per_word: float | None = None
    heldout_unknown_rate: float | None = None
    """Share of the tokens that stand for what the vocabulary lacks."""
    reference_bytes_per_token: float | None = None
    base_size: int | None = None
    """Tokens of the tokenizer that was brought; they keep their ids."""
    expanded_size: int | None = None
    """The same with the tokens that `expand` appended, before special tokens were added."""
    base_digest: str | None = None
    """sha256 of the file that was brought."""


class Pack(Result):
    tokens: int
    sequences: int
    documents: int
    heldout_tokens: int
    heldout_sequences: int
    heldout_documents: int
    bytes: int
    bytes_per_token: float
    token_bytes: int
    """Bytes of a token id in the shards."""
    padding: float
    """The share of the places in all rows of `seq_len + 1` tokens that hold none."""


class Trained(Result):
    """Of every stage that trains a model."""

    skipped_updates: int = 0
    """Updates that were left out, because the norm of their gradients was not finite or far above the usual."""
    skipped_steps: str = ""
    """The steps with such updates. The curve `skipped_row` has the rows of their batches."""
    zero_stage: int = 0
    """The stage of ZeRO that was in force; another one than the recipe's where that needs it."""


class Pretrain(Trained):
    objective: str = "next_token"
    """What held-out loss and perplexity are of: of each next token, or of the tokens in spans given the text on both
    sides of their blanks. Figures of different objectives do not compare, and bits per byte are of next tokens only."""
    heldout_perplexity_before: float | None
    heldout_perplexity_after: float | None
    heldout_loss_after: float | None
    bits_per_byte: float | None
    heldout_tokens: int
    heldout_sources: dict[str, dict[str, float | int | None]] = {}
    """Source -> its part of the held-out figures: `loss` in nats per token, `bits_per_byte`, and predicted `tokens`.

    Bits per byte are None where no token spells a byte, and where the objective is not to predict the next token.
    """
    parameters: int
    active_parameters: int | None = None
    """Those that compute something for a token: of a mixture of experts fewer than `parameters`."""
    tokens: int
    seconds: float
    reader_share: float
    """The part of the seconds in which the first process waited for its next batch."""
    tokens_per_s: float
    best_step: int | None = None
    """The step with the lowest held-out loss of all that were measured, step 0 left out.

    If it is not the last, its checkpoint stays.
    """
    best_heldout_loss: float | None = None
    best_checkpoint: str | None = None
    """The folder of that step's checkpoint, relative to the store: in another run if this one was extended after it.

    None if there is none: the last step of a run that keeps no checkpoints, or what the other run has deleted.
    """
    extended_from: str | None = None
    """The checkpoint of another run from which this one went on: its folder, relative to the store."""
    sources: dict[str, dict[str, float | int]] = {}
    """Source -> its `sequences` and `tokens` that were drawn, repetitions included, and the `epochs` that they make."""
    phases: dict[str, dict[str, float | int]] = {}
    """The steps of each phase, as in `steps 0 to 900` -> the epochs over each source in it."""
    attention: str | None = None
    """The implementation of attention that was in force, as transformers names it, such as `flex_attention`."""
    mfu: float | None = None
    """Model FLOPs utilisation, a fraction; None on a device whose peak is not known."""


class Sft(Trained):
    examples: int
    heldout_examples: int
    cuts: dict[str, dict[str, int]] = {}
    """`training` and `heldout` -> kind of cut -> the chats that lost something to `max_tokens`.

    `turns_dropped`: their oldest turns. `system_dropped`: the system turn. `prompt_cut`: the beginning of the last
    question. `reply_cut`: the reply's end.
    """
    heldout_loss_before: float | None
    heldout_loss_after: float | None
    heldout_perplexity_before: float | None
    heldout_perplexity_after: float | None
    tasks: dict[str, dict[str, float]] = {}
    """Task -> held-out loss on replies `before` and `after`, their `tokens`, and whether it was `learned`: 0 or 1.

    The other held-out figures are of learned tasks alone, if there are any.
    """
    text_perplexity_before: float | None = None
    """On held-out text of the pretraining corpus: how much was forgotten."""
    text_perplexity_after: float | None = None
    text_sources: dict[str, dict[str, float]] = {}
    """Source of the corpus -> perplexity `before` and `after`, and `tokens`."""
    best_step: int | None = None
    """As in `Pretrain`."""
    best_heldout_loss: float | None = None
    stopped_early: int | None = None
    """The step at which training ended, if it ended because the held-out loss did not fall any more."""
    taken_step: int | None = None
    """The step whose weights are the result, if they are not the last."""
    text_tokens: int = 0
    """Tokens of the pretraining corpus that were learned, too."""
    response_tokens: int
    seconds: float


class Reward(Trained):
    """Figures on the held-out replies; a tie counts as half right."""

    pairs: int
    """Prompts that it learned from, with two or more replies each."""
    pretrain_pairs: int = 0
    """Prompts of `reward.pretrain_tasks`, which it learned from before."""
    pretrain_steps: int = 0
    dropped: dict[str, dict[str, int]] = {}
    """`training`, `pretraining` and `heldout` -> the prompts that were left out, by reason: when their replies were cut
    to `max_tokens`, they became `equal`, or they `lost_end`; or there are `no_scores`, and only scores are learned."""
    cuts: dict[str, dict[str, int]] = {}
    """As in `Sft`, of the prompts that were kept."""
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    heldout_correct: float
    heldout_pairs: int
    """Each two replies to one held-out prompt of which people prefer one."""
    heldout_prompts: int | None = None
    heldout_effective: float | None = None
    """As many pairs of different prompts would say as much about the accuracy; its interval is that of so many."""
    heldout_loss: float
    ece: float
    """Expected calibration error."""
    shorter_accuracy: float | None = None
    """Of the pairs whose better reply has fewer tokens; a model that only likes long replies ranks them wrong."""
    shorter_accuracy_low: float | None = None
    shorter_accuracy_high: float | None = None
    shorter_pairs: int = 0
    shorter_effective: float = 0
    tasks: dict[str, dict[str, float | int]] = {}
    """Task of a prompt -> its `pairs`, and their `accuracy`, `low` and `high`; empty if there is only one."""
    heldout_mse: float | None = None
    """The mean squared error of rewards as people's scores, before normalisation; None without scores."""
    heldout_correlation: float | None = None
    """Pearson's, of rewards and scores."""
    reward_mean: float
    reward_std: float
    """Of the preferred replies, before normalisation."""


class Judge(Trained):
    """Of the second reward model, as in `Reward`; `pairs` is 0 and the rest None where the recipe asks for none."""

    pairs: int = 0
    pretrain_pairs: int = 0
    pretrain_steps: int = 0
    dropped: dict[str, dict[str, int]] = {}
    cuts: dict[str, dict[str, int]] = {}
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    heldout_pairs: int = 0
    heldout_effective: float | None = None
    heldout_loss: float | None = None
    ece: float | None = None
    shorter_accuracy: float | None = None
    shorter_accuracy_low: float | None = None
    shorter_accuracy_high: float | None = None
    shorter_pairs: int = 0
    reward_mean: float | None = None
    reward_std: float | None = None


class Gate(Result):
    """Whether PPO may start, and why. All fields but `open` are fractions of the held-out pairs."""

    open: bool
    accuracy: float
    low: float
    high: float
    threshold: float
    shorter_accuracy: float | None = None
    """Of the pairs whose better reply is the shorter one; None if there is none."""
    shorter_low: float | None = None
    shorter_high: float | None = None
    shorter_threshold: float | None = None
    """None if the recipe sets none: then these pairs decide nothing of their own."""

    @property
    def why_closed(self) -> str:
        """What is under its threshold, in a few words; empty if the gate is open."""
        failed = []
        if self.low < self.threshold:
            failed.append(f"{self.low:.3f} is under gate.min_accuracy {self.threshold:g}")
        if self.shorter_threshold is not None and (self.shorter_low or 0.0) < self.shorter_threshold:
            failed.append(
                f"{self.shorter_low or 0.0:.3f} of the pairs whose better reply is shorter is under "
                f"gate.min_shorter_accuracy {self.shorter_threshold:g}"
            )
        return " and ".join(failed)


class Dpo(Trained):
    """Figures on the held-out pairs: a reward is beta x the reply's log-probability less that under the SFT model."""

    pairs: int
    dropped: dict[str, dict[str, int]] = {}
    cuts: dict[str, dict[str, int]] = {}
    """Both as in `Reward`."""
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    heldout_pairs: int
    heldout_effective: float | None = None
    heldout_loss: float
    reward_chosen: float
    reward_rejected: float


class Replying(Trained):
    """Of every stage that samples replies and learns from their rewards: the first and the last value of its curves."""

    cuts: dict[str, dict[str, int]] = {}
    """As in `Sft`, of the `prompts` to `max_prompt_tokens`."""
    kl_exact_first: float | None = None
    kl_exact_last: float | None = None
    """Of the whole distributions at each token; `kl` is the estimate from the tokens that were sampled."""
    heldout_reward_first: float | None = None
    heldout_reward_last: float | None = None
    right_fraction_first: float | None = None
    right_fraction_last: float | None = None
    abstained_fraction_first: float | None = None
    abstained_fraction_last: float | None = None
    wrong_fraction_first: float | None = None
    wrong_fraction_last: float | None = None


class Grpo(Replying):
    reward_first: float
    reward_last: float
    kl_first: float
    kl_last: float
    response_length_first: float
    response_length_last: float
    eot_fraction_first: float
    eot_fraction_last: float
    policy_loss_first: float
    policy_loss_last: float
    kl_loss_first: float
    kl_loss_last: float
    entropy_first: float
    entropy_last: float
    clip_fraction_first: float
    clip_fraction_last: float
    equal_groups_first: float
    equal_groups_last: float
    """Share of the prompts whose replies all had the same reward, so that nothing was learned from them."""


class Ppo(Replying):
    best_of: int | None = None
    """The baseline: so many replies of the SFT model to each held-out prompt, of which the most rewarded counts."""
    best_of_reward: float | None = None
    best_of_kl: float | None = None
    """At most so many nats a reply is the baseline from the SFT model."""
    sft_reward: float | None = None
    """Of one reply of the SFT model."""
    heldout_reward: float | None = None
    """Of one reply of the policy to the same prompts."""
    beats_best_of: bool | None = None
    reward_first: float
    reward_last: float
    objective_first: float
    objective_last: float
    kl_first: float
    kl_last: float
    kl_coef_first: float
    kl_coef_last: float
    response_length_first: float
    response_length_last: float
    eot_fraction_first: float
    eot_fraction_last: float
    explained_variance_first: float
    explained_variance_last: float
    policy_loss_first: float
    policy_loss_last: float
    value_loss_first: float
    value_loss_last: float
    entropy_first: float
    entropy_last: float
    clip_fraction_first: float
    clip_fraction_last: float
    ptx_loss_first: float
    ptx_loss_last: float


class Evaluate(Result):
    heldout_sequences: int
    heldout_tokens: int
    prompts: int
    perplexity_pretrain: float | None = None
    perplexity_sft: float | None = None
    perplexity_ppo: float | None = None
    bits_per_byte_pretrain: float | None = None
    bits_per_byte_sft: float | None = None
    bits_per_byte_ppo: float | None = None
    reward_sft: float
    reward_ppo: float | None = None
    win_rate: float | None = None
    """Share of prompts for which the reward model that PPO optimised prefers PPO's reply to the SFT model's."""
    win_rate_low: float | None = None
    win_rate_high: float | None = None
    judge_sft: float | None = None
    """Mean reward by the judge, the second reward model, which PPO never saw; None if the recipe asks for no judge."""
    judge_ppo: float | None = None
    judge_win_rate: float | None = None
    """As `win_rate`, by the judge. Where it is much lower, PPO pleased its reward model and not people."""
    judge_win_rate_low: float | None = None
    judge_win_rate_high: float | None = None
    worse_sft: bool
    worse_ppo: bool | None = None
    aligned_by: str = "ppo"
    """The stage that made the model whose figures end in `_ppo`: `dpo` or `grpo` may stand in PPO's place."""
    last_win_rate: float | None = None
    """Share of prompts for which the reward model prefers the reply of the run's last model to that of the model of the
    last round of feedback; None if the recipe names none."""
    last_win_rate_low: float | None = None
    last_win_rate_high: float | None = None
    judge_last_win_rate: float | None = None
    """As `last_win_rate`, by the judge."""
    judge_last_win_rate_low: float | None = None
    judge_last_win_rate_high: float | None = None


class Benchmark(Result):
    """Of one model on one benchmark. All but the first four are of the items that were asked."""

    task: str
    """Which kind of benchmark it is, such as `mmlu`."""
    ability: str
    model: str
    """As the partition names it."""
    made_by: str
    """What the model is: `STAGE/FINGERPRINT`, of a step `pretrain/FINGERPRINT/step-...`, or `folder` and its name."""
    left_out: str = ""
    """Why nothing was asked: the gate is closed, so there is no aligned model. Then no figure follows."""
    score: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    """Items."""
    sources: int = 0
    """Groups of items that are alike, such as subjects."""
    shots: int = 0
    """Examples before an item; before the item with the fewest."""
    outputs: int = 0
    extraction_rate: float | None = None
    """The share of outputs in which an answer was found."""
    several: dict[str, dict[str, float | int | None]] = {}
    """Further scores -> `score`, `low` and `high`: where items have several outputs, `pass@K`, `majority` and `best`;
    of texts that are predicted, `bits_per_byte`."""


class Abilities(Result):
    models: int = 0
    benchmarks: int = 0
    scores: dict[str, dict[str, float | int | None]] = {}
    """Benchmark -> model -> score."""
    worse: dict[str, dict[str, float | int | None]] = {}
    """Model -> ability -> how much it lost beyond noise against the model before it."""
    closed: str = ""
    """Why the aligned model is kept back: the abilities that are beyond their bounds. Empty: it may be exported."""
    untold: str = ""
    """Abilities that `abilities.max_drop` cannot hold to anything, since they have too few sources for any result."""


class Sample(Result):
    round: int
    prompts: int
    """That were asked."""
    items: int
    """Prompts with two or more replies that differ, for people to compare."""
    replies: int
    """In these items."""
    models: dict[str, dict[str, int]]
    """What wrote them, `STAGE/FINGERPRINT` -> how many `replies` of it."""
    judge: str = ""
    """The chat model of the store that compared them, `STAGE/FINGERPRINT`, if one did."""
    asked: int = 0
    """How often it was asked which replies are better, with both orders and with choices between reply and revision."""
    unread: int = 0
    """Its answers to these that rank nothing. They are skips, and nothing is learned from them."""
    too_long: int = 0
    """Questions of all kinds that are longer than what it can read. They have an empty answer."""
    revised: int = 0
    """Replies with a revision that says something else."""


class Export(Result):
    stage: str
    kept_back: str = ""
    """Why PPO's model is not the one that is exported though there is one: the figures of `evaluate` that the recipe
    bounds and that are beyond their bounds."""
    parameters: int
    dtype: str


class Probe(Result):
    documents: int
    bytes: int
    """Of held-out text that was predicted."""
    documents_changed: int
    """Documents whose text the tokenizer does not give back as it was. Lost text costs no bits, but its bytes count."""
    diverged: bool = False
    """Whether training diverged: the model's bits are no number, or its updates were skipped until a run would give up.
    """
    bits_per_byte: float | None
    """Over all sources, each with as much weight as it has held-out text; None if that is no number."""
    sources: dict[str, dict[str, float | int]]
    """Source -> its `documents`, `bytes` and `bits_per_byte`."""
    tasks: dict[str, dict[str, float | int]] = {}
    """Task -> its `items`, the `accuracy`, and the `chance` of guessing right."""


class Ablate(Result):
    models: int
    tokens: int
    """On which each model was trained."""
    verdict: str
    best: str | None = None
    """The variant that is better than every other, if there is one."""
    bits_per_byte: dict[str, dict[str, float | int]] = {}
    """Variant -> the `mean` of its models' bits per byte, their standard deviation `spread`, and the `models`.

    Variants of which a model diverged are left out.
    """
    diverged: dict[str, dict[str, int]] = {}
    """Variant -> how many of its `models` diverged."""


class Checkpoint(Result):
    step: int
    processes: int
    schedule_steps: int
    """The updates of the whole schedule, on which the learning rates so far depend."""
    heldout_loss: float | None = None
    """Set if the model was the best so far when it was measured at this step."""
    upload_s: float | None = None
    """How long its upload took, by which a run that resumes from it knows whether another fits the grace period."""


RESULTS: dict[str, type[Result]] = {
    "crawl": Crawl,
    "extract": Extract,
    "minhash_sign": MinhashSign,
    "curate": Curate,
    "dedup_fuzzy": DedupFuzzy,
    "dedup_substring": DedupSubstring,
    "decontaminate": Decontaminate,
    "mix": Mix,
    "instructions": Examples,
    "preferences": Examples,
    "prompts": Examples,
    "tokenizer": Tokenizer,
    "pack": Pack,
    "pretrain": Pretrain,
    "sft": Sft,
    "reward": Reward,
    "judge": Judge,
    "gate": Gate,
    "ppo": Ppo,
    "dpo": Dpo,
    "grpo": Grpo,
    "evaluate": Evaluate,
    "benchmark": Benchmark,
    "abilities": Abilities,
    "export": Export,
    "sample": Sample,
    "probe": Probe,
    "ablate": Ablate,
}
"""The stages that commit figures."""


def result_of(stage: str) -> type[Result]:
    """The type of a stage's figures: `Result`, which has none, if the stage has no row in RESULTS."""
    return RESULTS.get(stage, Result)
