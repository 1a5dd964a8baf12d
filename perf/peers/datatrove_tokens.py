"""datatrove's tokenizer over Parquet files, on one core, in datatrove's own environment: RESULT.json FOLDER_IN TOKENIZER REPEATS WORK."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.utils.logging import logger


def run(source: str, tokenizer: str, work: Path, files: int) -> tuple[float, float]:
    """(processor seconds, seconds) of one pass. The documents stay in their order: Gristmill's are shuffled before."""
    shutil.rmtree(work, ignore_errors=True)
    writer = DocumentTokenizer(
        str(work / "tokens"), tokenizer, eos_token="<|endoftext|>", shuffle_documents=False, save_final_metadata=False
    )
    writer.tokenizer.get_vocab_size()  # loads it before the clock starts
    reader = ParquetReader(source, text_key="text", id_key="id")
    started, used = time.perf_counter(), time.process_time()
    LocalPipelineExecutor(pipeline=[reader, writer], tasks=files, workers=1, logging_dir=str(work / "log")).run()
    return time.process_time() - used, time.perf_counter() - started


def main() -> None:
    result, source, tokenizer, repeats, folder = sys.argv[1:]
    logger.remove()
    work, files = Path(folder), len(list(Path(source).glob("*.parquet")))
    taken = [run(source, tokenizer, work, files) for _ in range(int(repeats) + 1)][1:]  # the first one warms up
    Path(result).write_text(
        json.dumps(
            {
                "processor": min(one for one, _ in taken),
                "wall": min(one for _, one in taken),
                "tokens": [str(file) for file in sorted((work / "tokens").glob("*.ds"))],
            }
        )
    )


if __name__ == "__main__":
    main()
