"""The judge: a second reward model, which PPO never sees.

PPO finds replies that its reward model likes, and some of them only that model likes (Gao et al. 2022, Scaling Laws for
Reward Model Overoptimization). The judge learns as `reward` does, from pairs of other prompts and from other random
numbers, so that it has other weaknesses. `evaluate` asks both which replies are better, and PPO's result depends on no
file of the judge: its manifest does not name it.
"""

from contract import results
from contract.kinds import Kind
from contract.settings.training import Judge
from training import reward
from training.data.examples import read_pairs
from training.data.rankings import Rankings
from training.engine.job import Job


def run(job: Job) -> None:
    settings: Judge = job.settings
    if not settings.share:
        job.commit(job.scratch.fresh(f"result-{job.ranks.rank}"), results.Judge())
        return
    rankings = reward.divided(job, Rankings(read_pairs(job, Kind.PAIRS)), settings.share, judge=True)
    as_reward = job.setting("reward").model_copy(update={"engine": settings.engine, "seed": settings.seed})
    folder, figures = reward.fit(job, as_reward, rankings)
    told = {name: value for name, value in figures.items() if name in results.Judge.model_fields}
    job.commit(folder, results.Judge(**told), {reward.CALIBRATION: Kind.CALIBRATION})
