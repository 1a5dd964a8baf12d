"""Draws docs/deduplication.svg: how likely each preset finds a pair of some similarity. Run: python -m docs.s_curves"""

from pathlib import Path

import numpy as np

from contract.settings.corpus import MINHASH_PRESETS
from pipelines.dedup.minhash import found_probability, threshold


def main() -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "deduplication"  # the same file from the same curves
    figure, axes = pyplot.subplots(figsize=(7, 4))
    similarity = np.linspace(0, 1, 400)
    for name, values in MINHASH_PRESETS.items():
        bands, rows = values["bands"], values["rows"]
        label = f"{name}: {bands} x {rows}, {values['ngram']}-grams, half at {threshold(bands, rows):.2f}"
        axes.plot(similarity, found_probability(similarity, bands, rows), label=label)
    axes.axhline(0.5, color="0.8", linewidth=0.8)
    axes.axvline(0.8, color="0.8", linewidth=0.8)
    axes.set(
        xlabel="Jaccard similarity of the shingles", ylabel="probability of being found", xlim=(0, 1), ylim=(0, 1.02)
    )
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    figure.tight_layout()
    figure.savefig(Path(__file__).with_name("deduplication.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
