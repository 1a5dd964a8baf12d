"""Precision and recall of the language stage on labelled sentences: `python -m perf.language`.

`--output docs/language-identification.md` writes the page of the documentation.

The sentences are lingua's test data, about a thousand in each of 75 languages (Leipzig corpora). One sentence is far less text than a page
has, so these are lower bounds. Shown for the best answer, and for answers with at least the recipe's probability, which is what is kept.
"""

import argparse
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from contract.settings.corpus import Langid
from perf.bars import Bars
from pipelines.langid import identify

# lid.176 has one label for written Norwegian beside Nynorsk.
SAME = {"nb": "no"}
MACRO_F1 = 0.75
STOP_WORD_LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "pl", "ru", "zh", "ja")


def sentences(archive: Path) -> Iterator[tuple[str, str]]:
    """(ISO 639-1 code, sentence)."""
    with tarfile.open(archive) as files:
        for member in files:
            if member.isfile() and member.name.endswith(".txt"):
                code = Path(member.name).stem
                content = files.extractfile(member)
                assert content is not None
                for line in content.read().decode().splitlines():
                    if line.strip():
                        yield SAME.get(code, code), line


class Scored:
    """Counts for one threshold of probability."""

    def __init__(self) -> None:
        self.right: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()

    def add(self, truth: str, answer: str) -> None:
        self.answered[answer] += 1
        self.right[truth] += truth == answer

    def precision(self, code: str) -> float:
        return self.right[code] / self.answered[code] if self.answered[code] else 0.0


def table(archive: Path, threshold: float) -> tuple[list[str], dict[str, float]]:
    """(Markdown, F1 of each language where answers below the threshold count as none)."""
    best, sure, total = Scored(), Scored(), Counter[str]()
    for truth, sentence in sentences(archive):
        total[truth] += 1
        answer, probability = identify(sentence)
        best.add(truth, answer)
        if probability >= threshold:
            sure.add(truth, answer)
    lines = [
        f"| language | sentences | precision | recall | precision at {threshold:g} | recall at {threshold:g} |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    f1 = {}
    for code, count in sorted(total.items()):
        precision, recall = best.precision(code), best.right[code] / count
        kept_precision, kept_recall = sure.precision(code), sure.right[code] / count
        both = kept_precision + kept_recall
        f1[code] = 2 * kept_precision * kept_recall / both if both else 0.0
        lines.append(
            f"| {code} | {count:,} | {precision:.3f} | {recall:.3f} | {kept_precision:.3f} | {kept_recall:.3f} |"
        )
    return lines, f1


def page(lines: list[str], f1: dict[str, float], threshold: float) -> str:
    """The documentation's page."""
    known = {code: value for code, value in f1.items() if value > 0}
    missing = ", ".join(sorted(set(f1) - set(known))) or "none"
    return (
        "\n".join(
            [
                "# Language identification, measured",
                "",
                "Run the commands in the project's folder, after `make setup`; `python` means `.venv/bin/python`.",
                "",
                "fastText's lid.176 on single sentences (lingua's test data), made by",
                "`python -m perf.language --output docs/language-identification.md`. A page has far more text than a",
                f"sentence, so these are lower bounds. Languages of the set that the model never answers: {missing}.",
                "",
                *lines,
                "",
                f"Mean F1 at {threshold:g} of the {len(known)} languages that the model knows: {sum(known.values()) / len(known):.3f}.",
            ]
        )
        + "\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.language", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, help="the documentation's page")
    given = parser.parse_args()
    threshold = Langid().min_probability
    lines, f1 = table(given.data / "lid" / "lingua_sentences_75langs.tar.xz", threshold)
    known = {code: value for code, value in f1.items() if value > 0}
    if given.output:
        given.output.write_text(page(lines, f1, threshold))
    bars = Bars()
    bars.at_least("language_macro_f1", sum(known.values()) / len(known), MACRO_F1)
    bars.at_least("language_f1_of_shipped_stop_word_languages", min(f1[code] for code in STOP_WORD_LANGUAGES), 0.9)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
