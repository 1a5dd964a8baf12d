"""datatrove's four MinHash stages over Parquet files, in datatrove's own environment: FOLDER_IN FOLDER_OUT TASKS WORKERS."""

import sys

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.readers import ParquetReader


def main() -> None:
    source, work, tasks, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)

    def run(name: str, pipeline: list, tasks: int) -> None:
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=workers, logging_dir=f"{work}/log-{name}").run()

    def reader() -> ParquetReader:
        return ParquetReader(source, text_key="text", id_key="id")

    run("sign", [reader(), MinhashDedupSignature(f"{work}/signatures", config=config)], tasks)
    run("buckets", [MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)], config.num_buckets)
    run("cluster", [MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)], 1)
    run("filter", [reader(), MinhashDedupFilter(f"{work}/remove")], tasks)


if __name__ == "__main__":
    main()
