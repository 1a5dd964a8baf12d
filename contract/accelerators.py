"""The accelerators that models are trained on, as their makers' data sheets describe them."""

from dataclasses import dataclass

GB = 1e9


@dataclass(frozen=True)
class Accelerator:
    """memory: bytes, in the data sheet's decimal GB. peak: dense bf16 FLOP/s, half of what is sold as sparse.

    bandwidth: of the memory, in bytes a second. device: a part of the name by which CUDA knows it; a name that says
    neither PCIe nor NVL is that of an SXM device.

    A device has up to 7 % more memory than its data sheet says; the CUDA context and the gaps between tensors take it.
    """

    name: str
    memory: float
    peak: float
    bandwidth: float
    device: str


ACCELERATORS = {
    "h100": Accelerator("H100 SXM", 80 * GB, 989e12, 3.35e12, "H100"),
    "h100-pcie": Accelerator("H100 PCIe", 80 * GB, 756e12, 2.0e12, "H100 PCIe"),
    "h100-nvl": Accelerator("H100 NVL", 94 * GB, 835e12, 3.9e12, "H100 NVL"),
    "h200": Accelerator("H200 SXM", 141 * GB, 989e12, 4.8e12, "H200"),
    "h200-nvl": Accelerator("H200 NVL", 141 * GB, 835e12, 4.8e12, "H200 NVL"),
    "a100": Accelerator("A100 80 GB", 80 * GB, 312e12, 2.04e12, "A100"),
    "a100-40gb": Accelerator("A100 40 GB", 40 * GB, 312e12, 1.56e12, "A100"),
}
"""NVIDIA's data sheets of 2020 to 2024. The A100's peak is the same for SXM and PCIe."""

MOST_MEMORY = 288 * GB
"""No accelerator has more: NVIDIA's B300 and AMD's MI355X. A recipe that needs more on one is refused."""

LOGITS_AT_ONCE = {"cuda": 1 << 28, "cpu": 1 << 24}
"""Logits that the loss of the next token holds at once (`training/loss.py`), by the kind of device.

A GPU wants long products: 8,192 tokens of 32 k entries. A CPU was fastest with 512 of them.
"""
