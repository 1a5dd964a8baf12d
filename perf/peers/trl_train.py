"""Fine-tuning or reward training by TRL, in TRL's own environment: RESULT.json sft|reward MODEL_FOLDER ROWS.jsonl BATCH LR THREADS.

ROWS.jsonl has what TRL trains on, already tokenized. RESULT.json gets the time at the end of each step, in seconds.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer


class Ends(TrainerCallback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def main() -> None:
    result, kind, model, rows, batch, lr, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    noted = Ends()
    common: dict[str, Any] = {
        "output_dir": str(Path(result).with_suffix("")),
        "num_train_epochs": 1,
        "per_device_train_batch_size": int(batch),
        "learning_rate": float(lr),
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "gradient_checkpointing": False,
        "bf16": False,
        "logging_steps": 10,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "max_length": None,
    }
    data = Dataset.from_list([json.loads(line) for line in Path(rows).read_text().splitlines()])
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer: Any
    if kind == "sft":
        module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        trainer = SFTTrainer(
            module, args=SFTConfig(**common), train_dataset=data, processing_class=tokenizer, callbacks=[noted]
        )
    else:
        module = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32)
        trainer = RewardTrainer(
            module, args=RewardConfig(**common), train_dataset=data, processing_class=tokenizer, callbacks=[noted]
        )
    trainer.train()
    Path(result).write_text(json.dumps(noted.ends))


if __name__ == "__main__":
    main()
