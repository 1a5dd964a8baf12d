"""The level of what a child's loggers say, what is left out, and what an exit code means, on lines that were really printed."""

import logging

import pytest

from gristmill_airflow.output import awaited, ending, graded, level_of

INFO, WARNING, ERROR, CRITICAL = logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("error: the disk is full", ERROR),
        ("warning: sft is worse than pretrain beyond noise", WARNING),
        ("progress pretrain all 1/2 steps 1.0/s loss 3", INFO),
        ("committed pretrain all: file:///store/manifest.json", INFO),
        ("supervisor: asking 2 process(es) to stop, at most 600 s", INFO),
        ("WARNING:root:careful", WARNING),
        ("ERROR:py4j.clientserver:There was an exception", ERROR),
        ("INFO:datasets:done", INFO),
        ("12:03:04 ERROR Executor: Exception in task 0.0 in stage 1.0", ERROR),
        ("12:03:04 WARN TaskSetManager: Lost task 0.0", WARNING),
        ("26/11/21 14:54:02 WARN BlockManager: Block rdd_1 already exists", WARNING),
        ("26/11/21 14:54:02 FATAL YarnAllocator: gone", CRITICAL),
        ("[2026-11-21 14:54:10,731] [WARNING] [engine.py:213:step] overflow", WARNING),
        (
            "[2026-11-21 14:54:10,731] [ERROR] [launch.py:259:sigkill_handler] ['python'] exits with return code = -9",
            ERROR,
        ),
        ("[W1121 14:54:10.731000000 socket.cpp:752] [c10d] The client socket cannot be initialized", WARNING),
        ("E1121 14:54:10.731000 99 torch/distributed/elastic/multiprocessing/api.py:874] failed (exitcode: 1)", ERROR),
        (
            "[rank1]:[W1121 14:54:10.731000000 ProcessGroupNCCL.cpp:1250] Warning: destroy_process_group() was not called",
            WARNING,
        ),
        (
            "/venv/site-packages/torch/optim/lr_scheduler.py:62: UserWarning: The verbose parameter is deprecated.",
            WARNING,
        ),
        ("Traceback (most recent call last):", ERROR),
        ("[rank0]: torch.OutOfMemoryError: CUDA out of memory.", ERROR),
        ("KeyboardInterrupt", ERROR),
        ("Errors were found in 3 files", INFO),
        ("warnings: 3", INFO),
    ],
)
def test_a_line_keeps_its_level(line, level):
    assert level_of(line) == level


def test_a_stack_trace_has_the_level_of_its_first_line():
    said = [
        "fine",
        "Traceback (most recent call last):",
        '  File "a.py", line 1',
        "ValueError: no",
        "    at once",
        "fine again",
    ]
    assert list(graded(said)) == list(zip([INFO, ERROR, ERROR, ERROR, ERROR, INFO], said, strict=True))


STARTS = """\
WARNING: Using incubator modules: jdk.incubator.vector
Using Spark's default log4j profile: org/apache/spark/log4j2-defaults.properties
Setting default log level to "WARN".
To adjust logging level use sc.setLogLevel(newLevel). For SparkR, use setLogLevel(newLevel).
26/11/21 14:54:02 WARN NativeCodeLoader: Unable to load native-hadoop library for your platform... using builtin-java classes
26/11/21 14:54:02 WARN Utils: Your hostname, laptop, resolves to a loopback address: 127.0.1.1; using 10.0.0.2 instead
26/11/21 14:54:02 WARN Utils: Set SPARK_LOCAL_IP if you need to bind to another address
[2026-11-21 14:54:10,731] [WARNING] [real_accelerator.py:213:get_accelerator] Setting accelerator to CPU. If you have GPU or other accelerator, we were unable to detect it.
[2026-11-21 14:54:12,409] [WARNING] [runner.py:214:fetch_hostfile] Unable to find hostfile, will proceed with training with local resources only.
[2026-11-21 14:54:12,415] [INFO] [runner.py:618:main] cmd = /venv/bin/python -u -m deepspeed.launcher.launch --module training pretrain
[2026-11-21 14:54:18,955] [INFO] [launch.py:152:main] WORLD INFO DICT: {'localhost': [0]}
[2026-11-21 14:54:38,007] [INFO] [launch.py:285:main] Process 20121 exits successfully.
[2026-11-21 14:54:38,007] [ERROR] [launch.py:259:sigkill_handler] ['/venv/bin/python', '-u', '-m', 'training', 'pretrain'] exits with return code = 75
Detected VISIBLE_DEVICES=5,3 but ignoring it because one or several of --include/--exclude/--num_gpus/--num_nodes cl args were used.
[Gloo] Rank 0 is connected to 1 peer ranks. Expected number of connected peer ranks is : 1
"""


def test_what_launchers_say_at_every_start_is_left_out():
    said = ["supervisor: up", *STARTS.splitlines(), "26/11/21 14:54:02 WARN Utils: Service could not bind on port 4040"]
    assert list(graded(said)) == [(INFO, said[0]), (WARNING, said[-1])]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (137, "was killed by signal 9 (SIGKILL), often out of memory"),  # a shell's, and the supervisor's
        (247, "was killed by signal 9 (SIGKILL), often out of memory"),  # a launcher that exits with -9
        (-9, "was killed by signal 9 (SIGKILL), often out of memory"),  # Python's
        (139, "was killed by signal 11 (SIGSEGV)"),
        (245, "was killed by signal 11 (SIGSEGV)"),
        (135, "was killed by signal 7 (SIGBUS), often a full disk or full shared memory"),
        (143, "was killed by signal 15 (SIGTERM)"),
        (255, "ended with exit code 255"),
        (128, "ended with exit code 128"),
        (200, "ended with exit code 200"),
        (65, "ended with exit code 65"),
        (1, "ended with exit code 1"),
    ],
)
def test_an_exit_code_names_its_signal(code, said):
    assert ending(code) == said


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            "supervisor: cpu of this machine is in use by ppo all of file:///s/runs/x/recipe.yaml, process 7; this task goes on when that has ended",
            "the cpu of its machine, in use by ppo all",
        ),
        (
            "supervisor: gpu-0 of this machine is in use by me error: forged; this task goes on when that has ended",
            "the gpu-0 of its machine, in use by another process",
        ),
        (
            "supervisor: sft all of file:///s/runs/x/recipe.yaml, process 7 still runs this task; this attempt goes on when it has ended",
            "its earlier attempt to end",
        ),
        ("supervisor: killed 2 process(es) that an earlier task had left behind", ""),
        ("progress pretrain all 1/2 steps 1.0/s", ""),
    ],
)
def test_what_a_task_waits_for(line, what):
    assert awaited(line) == what
