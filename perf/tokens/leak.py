"""Do documents of one row see each other, and does packing change what is learnt?

A row of three documents goes through the model of recipes/tiny.yaml, in float32. Then the first document is replaced,
and the logits of the others are compared; then gradients are compared with those of the documents one at a time.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from contract.settings.training import Model
from perf.bars import Bars
from training.data.batch import Batch, Row, collate
from training.models import llama
from training.models.lm import next_logits, token_nll

TINY = Model(layers=4, d_model=128, heads=4, kv_heads=4, d_ff=344)
VOCABULARY, SEQ_LEN = 4096, 256
LENGTHS = (90, 100, 67)  # together one row of 257 tokens
CPU = torch.device("cpu")


def documents(seed: int) -> list[np.ndarray]:
    """Three documents of random tokens."""
    random = np.random.default_rng(seed)
    return [random.integers(0, VOCABULARY, length) for length in LENGTHS]


def packed(some: list[np.ndarray], boundaries: bool = True) -> Batch:
    """One row of all documents."""
    starts = np.cumsum([0, *(len(one) for one in some)])[:-1]
    return collate([Row(np.concatenate(some), starts)], SEQ_LEN, boundaries)


@torch.no_grad()
def leak(model: nn.Module, boundaries: bool) -> float:
    """The largest change of the second and third document's logits when the first is another one."""
    here = documents(1)
    there = [documents(2)[0], *here[1:]]
    one, other = (next_logits(model, packed(some, boundaries), CPU) for some in (here, there))
    return float((one - other)[:, LENGTHS[0] :].abs().max())


def gradients(model: nn.Module, batches: list[Batch]) -> list[torch.Tensor]:
    """The gradients of the mean loss over all tokens that the batches predict."""
    model.zero_grad()
    count = sum(batch.count for batch in batches)
    for batch in batches:
        ((token_nll(model, batch, CPU) * batch.mask).sum() / count).backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def gradient_difference(model: nn.Module, boundaries: bool) -> float:
    """Between a packed row and its documents alone: the largest difference, relative to the parameter's largest."""
    some = documents(1)
    alone = [collate([Row(one, np.zeros(1, int))], len(one) - 1, boundaries=False) for one in some]
    pairs = zip(gradients(model, [packed(some, boundaries)]), gradients(model, alone), strict=True)
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


def run(bars: Bars, data: Path) -> None:
    torch.set_num_threads(1)
    model = llama.build(TINY, VOCABULARY, SEQ_LEN, seed=0)
    print(
        f"without boundaries: logits change by {leak(model, False):.3g}, gradients by {gradient_difference(model, False):.3g}"
    )
    bars.at_most("packing_leak", leak(model, True), 0)
    bars.at_most("packed_equals_unpacked", gradient_difference(model, True), 1e-5)
