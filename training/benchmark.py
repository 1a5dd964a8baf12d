"""A model answers the items of a benchmark, and its answers are graded."""

from training.engine.job import Job


def run(job: Job) -> None:
    raise NotImplementedError
