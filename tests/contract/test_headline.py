"""The sentence of every stage, from manifests such as the stages write."""

import datetime

import pytest

from contract.errors import DamagedError
from contract.headline import SENTENCES, headline, left_out, number, warnings
from contract.identity import Identity
from contract.manifest import Manifest, Rows
from contract.stages import STAGES

NOW = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)
PARTS = {
    "fingerprint": "f",
    "attempt": "a",
    "files": (),
    "run": "r",
    "code": "c",
}


def made(
    of: str, rows: Rows | None = None, /, partition: str = "all", **metrics: float | str | bool | None
) -> Manifest:
    return Manifest(
        stage=of,
        partition=partition,
        identity=Identity(stage=of, version=1),
        rows=rows or Rows(),
        metrics=metrics,
        started=NOW,
        finished=NOW,
        **PARTS,
    )


LANGID = Rows(read=456, kept=393, dropped=63, reasons={"language_unsure": 3, "language": 60})
WHOLE = Rows(read=1234, kept=1234)
GATE = {"accuracy": 0.6, "low": 0.502, "high": 0.691, "threshold": 0.55}
SHORTER = {"shorter_accuracy": 0.5, "shorter_low": 0.4, "shorter_high": 0.6, "shorter_threshold": 0.45}
TOLD = [
    (made("crawl", WHOLE, files=3), "1,234 of 1,234 documents kept; crawl files 3"),
    (made("extract", WHOLE), "1,234 of 1,234 documents kept"),
    (made("langid", LANGID), "393 of 456 documents kept; language 60, language_unsure 3"),
    (made("score", WHOLE), "1,234 of 1,234 documents kept"),
    (
        made("filter", Rows(read=20, dropped=20, reasons={"a": 1, "b": 2, "c": 3, "d": 4, "e": 10})),
        "0 of 20 documents kept; e 10, d 4, c 3, other reasons 3",
    ),
    (made("minhash_sign", documents=12345), "12,345 documents signed"),
    (made("curate", WHOLE, sources=2), "1,234 of 1,234 documents kept"),
    (made("curate", sources=0), "no sources beside the crawl"),
    (made("dedup_url", WHOLE), "1,234 of 1,234 documents kept"),
    (made("dedup_fuzzy", LANGID, clusters=2), "393 of 456 documents kept; language 60, language_unsure 3"),
    (
        made("dedup_substring", WHOLE, tokens_cut=235, documents_cut=4),
        "1,234 of 1,234 documents kept; tokens cut 235, documents cut 4",
    ),
    (made("decontaminate", WHOLE, benchmark_ngrams=0), "1,234 of 1,234 documents kept"),
    (
        made("mix", WHOLE, training_documents=1200, heldout_documents=34),
        "1,234 of 1,234 documents kept; 1,200 for training, 34 held out",
    ),
    (
        made(
            "instructions",
            Rows(read=5083, kept=5052, dropped=31, reasons={"duplicate": 31}),
            training=4812,
            heldout=240,
        ),
        "4,812 chats for training, 240 held out; duplicate 31",
    ),
    (made("preferences", WHOLE, training=1000, heldout=234), "1,000 pairs for training, 234 held out"),
    (made("prompts", WHOLE, training=1000), "1,000 prompts of their own"),
    (
        made("tokenizer", vocab_size=2048, heldout_bytes_per_token=3.14),
        "2,048 tokens, 3.14 bytes each on held-out text",
    ),
    (
        made("pack", tokens=39850, sequences=416, heldout_tokens=11928),
        "39,850 tokens in 416 sequences; 11,928 tokens held out",
    ),
    (
        made("pretrain", heldout_perplexity_before=4138.2, heldout_perplexity_after=203.6),
        "held-out perplexity 4,138 -> 204",
    ),
    (made("sft", heldout_perplexity_before=None, heldout_perplexity_after=None), "nothing was held out to measure on"),
    (
        made(
            "sft",
            heldout_perplexity_before=12.4,
            heldout_perplexity_after=8.1,
            text_perplexity_before=20.3,
            text_perplexity_after=21.6,
        ),
        "held-out perplexity 12.4 -> 8.1 on replies, 20.3 -> 21.6 on pretraining text",
    ),
    (
        made("reward", accuracy=0.9667, accuracy_low=0.925, accuracy_high=0.9858),
        "held-out accuracy 0.967, confidence interval 0.925 to 0.986",
    ),
    (
        made("reward", accuracy=0.9667, accuracy_low=0.925, accuracy_high=0.9858, shorter_accuracy=0.5),
        "held-out accuracy 0.967, confidence interval 0.925 to 0.986; 0.5 where the better reply is shorter",
    ),
    (
        made("judge", pairs=9, accuracy=0.9667, accuracy_low=0.925, accuracy_high=0.9858),
        "held-out accuracy 0.967, confidence interval 0.925 to 0.986",
    ),
    (made("judge", pairs=0, accuracy=None), "no second reward model: judge.share is 0"),
    (
        made("gate", open=True, **(GATE | {"low": 0.569})),
        "open: held-out accuracy 0.6, confidence interval 0.569 to 0.691, whose lower end reaches 0.55",
    ),
    (
        made("gate", open=False, **GATE),
        "closed: held-out accuracy 0.6, confidence interval 0.502 to 0.691, whose lower end is under 0.55",
    ),
    (
        made("gate", open=False, **(GATE | {"low": 0.569}), **SHORTER),
        "closed, because of the pairs whose better reply is shorter: held-out accuracy 0.6, confidence interval 0.569 "
        "to 0.691, whose lower end reaches 0.55; 0.5 where the better reply is shorter, 0.4 at the lower end is under 0.45",
    ),
    (
        made("gate", open=True, **(GATE | {"low": 0.569}), **(SHORTER | {"shorter_low": 0.45})),
        "open: held-out accuracy 0.6, confidence interval 0.569 to 0.691, whose lower end reaches 0.55; "
        "0.5 where the better reply is shorter, 0.45 at the lower end reaches 0.45",
    ),
    (
        made("benchmark", score=0.25, low=0.1, high=0.5, n=40, several={"pass@1": {"score": 0.125, "low": 0.1}}),
        "score 0.25 on 40 items, confidence interval 0.1 to 0.5; pass@1 0.125",
    ),
    (made("benchmark", left_out="PPO is left out"), "nothing asked: PPO is left out"),
    (made("abilities", benchmarks=0), "the recipe names no benchmarks"),
    (
        made("abilities", models=3, benchmarks=2, worse={"aligned": {"maths": 0.25, "code": 0.1}}, closed="maths fell"),
        "3 models, 2 benchmarks; aligned lost maths, code; kept back: maths fell",
    ),
    (
        made("ppo", reward_first=-0.757, reward_last=0.1123, kl_first=0.0, kl_last=3.08, loss_last=2.0),
        "reward -0.757 -> 0.112, KL 0 -> 3.08",
    ),
    (
        made("grpo", reward_first=0.1, reward_last=0.5, kl_first=0.0, kl_last=1.25),
        "reward 0.1 -> 0.5, KL 0 -> 1.25",
    ),
    (
        made("dpo", accuracy=0.7, accuracy_low=0.6, accuracy_high=0.8, reward_chosen=0.5, reward_rejected=-1.25),
        "held-out accuracy 0.7, confidence interval 0.6 to 0.8; rewards 0.5 and -1.25",
    ),
    (
        made(
            "evaluate",
            perplexity_sft=514.2,
            perplexity_ppo=578.0,
            win_rate=0.7,
            win_rate_low=0.6,
            win_rate_high=0.8,
            aligned_by="dpo",
        ),
        "held-out perplexity 514 (sft) -> 578 (dpo); DPO's win rate by the reward model 0.7, confidence interval 0.6 to 0.8",
    ),
    (
        made(
            "evaluate",
            perplexity_pretrain=455.4,
            perplexity_sft=514.2,
            perplexity_ppo=578.0,
            win_rate=0.78,
            win_rate_low=0.61,
            win_rate_high=0.89,
        ),
        "held-out perplexity 455 (pretrain) -> 514 (sft) -> 578 (ppo); PPO's win rate by the reward model 0.78, confidence interval 0.61 to 0.89",
    ),
    (
        made(
            "evaluate",
            win_rate=0.78,
            win_rate_low=0.61,
            win_rate_high=0.89,
            judge_win_rate=0.5,
            judge_win_rate_low=0.3,
            judge_win_rate_high=0.7,
        ),
        "PPO's win rate by the reward model 0.78, confidence interval 0.61 to 0.89; "
        "PPO's win rate by the judge 0.5, confidence interval 0.3 to 0.7",
    ),
    (
        made("evaluate", perplexity_pretrain=455.4, perplexity_sft=514.2, reward_sft=0.1),
        "held-out perplexity 455 (pretrain) -> 514 (sft)",
    ),
    (made("evaluate", reward_sft=0.1), "nothing was held out to measure on"),
    (
        made("evaluate", last_win_rate=0.75, last_win_rate_low=0.6, last_win_rate_high=0.9),
        "win rate against the last round by the reward model 0.75, confidence interval 0.6 to 0.9",
    ),
    (made("sample", round=2, prompts=100, items=98, replies=196), "round 2: 98 items with 196 replies, of 100 prompts"),
    (
        made("sample", round=2, prompts=9, items=8, replies=16, judge="ppo/a", asked=32, unread=5),
        "round 2: 8 items with 16 replies, of 9 prompts; the judge ranked nothing in 5 of 32 answers",
    ),
    (made("export", stage="ppo", parameters=29536, dtype="fp32"), "the ppo model, 29,536 parameters in fp32"),
    (
        made("export", stage="sft", parameters=29536, dtype="fp32", kept_back="win_rate 0.4 is under 0.5"),
        "the sft model, 29,536 parameters in fp32; PPO's is kept back: win_rate 0.4 is under 0.5",
    ),
    (made("probe", bits_per_byte=1.2345, documents=1234), "1.23 bits per byte of 1,234 held-out documents"),
    (made("ablate", verdict="a is better than b"), "a is better than b"),
    (made("ppo", partition="step-00000010", step=10, processes=1), "checkpoint of step 10"),
]


@pytest.mark.parametrize(("manifest", "said"), TOLD, ids=lambda one: one.stage if isinstance(one, Manifest) else "")
def test_a_manifest_in_one_sentence(manifest: Manifest, said: str) -> None:
    assert headline(manifest) == said


def test_every_sentence_is_told() -> None:
    assert {*SENTENCES} <= {manifest.stage for manifest, _ in TOLD} <= {*STAGES}


def test_a_stage_without_a_sentence_tells_its_documents() -> None:
    assert headline(made("a_new_stage", Rows(read=5, kept=3, dropped=2, reasons={"odd": 2}))) == (
        "3 of 5 documents kept; odd 2"
    )


def test_what_got_worse_is_a_warning_with_its_figures() -> None:
    figures = {"perplexity_pretrain": 455.4, "perplexity_sft": 514.2, "perplexity_ppo": 578.0}
    flags = {"worse_sft": True, "worse_ppo": True}
    sft = "sft is worse than pretrain beyond noise: held-out perplexity 455 -> 514"
    ppo = "ppo is worse than sft beyond noise: held-out perplexity 514 -> 578"
    assert warnings(made("evaluate", **figures, **flags)) == [sft, ppo]
    assert warnings(made("evaluate", **figures, **flags, win_rate_high=0.61)) == [sft, ppo]
    lost = {"win_rate": 0.2, "win_rate_low": 0.1, "win_rate_high": 0.4}
    assert warnings(made("evaluate", **figures, **lost, worse_sft=False, worse_ppo=True)) == [
        "ppo is worse than sft beyond noise: PPO's win rate by the reward model 0.2, confidence interval 0.1 to 0.4"
    ]
    hacked = {"win_rate_high": 0.9, "judge_win_rate": 0.3, "judge_win_rate_low": 0.2, "judge_win_rate_high": 0.4}
    assert warnings(made("evaluate", **figures, **hacked, worse_sft=False, worse_ppo=True)) == [
        "ppo is worse than sft beyond noise: PPO's win rate by the judge 0.3, confidence interval 0.2 to 0.4"
    ]
    assert warnings(made("evaluate", **figures, worse_sft=False)) == []
    assert warnings(made("langid", LANGID)) == []


def test_why_ppo_is_left_out() -> None:
    assert left_out(made("gate", open=False, **GATE)) == (
        "PPO is left out, because the gate is closed: held-out accuracy 0.6, confidence interval 0.502 to 0.691, whose lower end is under 0.55"
    )


def test_only_an_interval_wholly_under_one_half_is_a_lost_comparison() -> None:
    figures = {"perplexity_sft": 5.0, "perplexity_ppo": 6.0, "win_rate": 0.4, "win_rate_low": 0.3, "worse_ppo": True}
    by_text = ["ppo is worse than sft beyond noise: held-out perplexity 5 -> 6"]
    assert warnings(made("evaluate", **figures, win_rate_high=0.5)) == by_text
    assert warnings(made("evaluate", **figures, win_rate_high=0.49)) == [
        "ppo is worse than sft beyond noise: PPO's win rate by the reward model 0.4, confidence interval 0.3 to 0.49"
    ]
    late = {"perplexity_pretrain": 5.0, "perplexity_sft": 6.0, "worse_sft": True, "win_rate_high": 0.4}
    assert warnings(made("evaluate", **late)) == ["sft is worse than pretrain beyond noise: held-out perplexity 5 -> 6"]


def test_large_numbers_are_whole() -> None:
    assert [number(one) for one in (999.6, 999.4, 1000, -999.4, -1000.6)] == ["1,000", "999", "1,000", "-999", "-1,001"]


def test_small_numbers_have_no_exponent() -> None:
    assert [number(one) for one in (1e-05, -0.00012345, 1.5e-7)] == ["0.00001", "-0.000123", "0.00000015"]


def test_numbers() -> None:
    assert [number(one) for one in (0.12345, 999.4, 1234.5, 0, None, "x")] == ["0.123", "999", "1,234", "0", "-", "-"]


def test_a_stage_that_leaves_nothing_warns_at_once() -> None:
    """Otherwise the first to say so is `mix`, six stages later."""
    gone = made("filter", Rows(read=18, dropped=18, reasons={"line_punctuation": 18}))
    assert warnings(gone) == [
        "filter dropped all 18, so the stages after it get none; docs/filters.md names the setting of each reason"
    ]
    assert warnings(made("langid", Rows(read=2, dropped=2, reasons={"language": 2}))) == [
        "langid dropped all 2, so the stages after it get none; see its settings"
    ]
    assert warnings(made("langid", Rows())) == warnings(made("langid", LANGID)) == []


def test_a_text_where_a_figure_belongs_is_damage() -> None:
    assert warnings(made("pretrain", skipped_updates=1200, skipped_steps="3"))[0].startswith(
        "pretrain skipped 1,200 update"
    )
    with pytest.raises(
        DamagedError, match=r"^pretrain/f/all/manifest.json: the manifest is damaged: skipped_updates is 'x"
    ):
        warnings(made("pretrain", skipped_updates="x" * 99))
