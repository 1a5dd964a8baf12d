import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
from mutants import worker
worker.SLOW_IMPORTS = ()
place = Path(sys.argv[1])
worker.enter(place)
for name, limit in (("sound", 60), ("failing", 60), ("hanging", 3)):
    outcome = worker.run([f"{name}_test.py"], place / "log", limit, place / f"{name}.json")
    print(name, outcome.code)
"""


def test_a_run_passes_fails_or_takes_too_long(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: none\n")
    (tmp_path / "sound_test.py").write_text("def test_one(): assert True\n")
    (tmp_path / "failing_test.py").write_text("def test_one(): assert False\n")
    (tmp_path / "hanging_test.py").write_text(
        "import subprocess, time\ndef test_one():\n  subprocess.Popen(['sleep', '987'], start_new_session=True)\n  time.sleep(99)\n"
    )
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=240)
    assert done.stdout.splitlines() == ["sound 0", "failing 1", "hanging None"], done.stderr
    left = subprocess.run(["pgrep", "-f", "sleep 987"], capture_output=True, text=True)
    assert left.stdout == ""


ORDER = """
import sys
from pathlib import Path
from mutants import worker
worker.SLOW_IMPORTS = ()
place = Path(sys.argv[1])
worker.enter(place)
for _ in range(2):
    worker.run(["a_test.py", "b_test.py"], place / "log", 60, place / "seconds.json")
"""


def test_the_quickest_tests_of_a_file_come_first_once_they_are_known(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: none\n")
    for name, seconds in (("a", (0.3, 0.0, 0.15)), ("b", (0.1, 0.0))):
        said = [
            f"def test_{n}():\n  time.sleep({wait})\n  open('order', 'a').write('{name}{n} ')\n"
            for n, wait in enumerate(seconds)
        ]
        (tmp_path / f"{name}_test.py").write_text("import time\n" + "".join(said))
    command = [sys.executable, "-c", ORDER, str(tmp_path)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=240)
    assert (tmp_path / "order").read_text().split() == ["a0", "a1", "a2", "b0", "b1", "a1", "a2", "a0", "b1", "b0"]


TRIAL = """
import sys
from pathlib import Path
from mutants import worker
from mutants.faults import faults
worker.SLOW_IMPORTS = ()
place = Path(sys.argv[1]) / "tree"
worker.compile_tree(place)
worker.enter(place)
source = (place / "contract/one.py").read_text()
kinds = {"ReplaceBinaryOperator_Mul_Div", "NumberReplacer"}
drawn = [fault for fault in faults("contract/one.py", source) if fault.kind in kinds]
known = {("contract/one.py", "WAIT = 5 -> WAIT = 6")}
for _, state, seconds, changed in sorted(worker._try(drawn, place, known), key=lambda one: one[3]):
    print(state, "at once" if seconds == 0 else "after tests", *changed.split())
assert (place / "contract/one.py").read_text() == source
"""


@pytest.mark.parametrize(("right", "said"), [(6, None), (7, "untried, the tests fail without a fault")])
def test_faults_are_noticed_survive_or_are_known(tmp_path: Path, right: int, said: str | None) -> None:
    tree = tmp_path / "tree"
    for folder in ("contract", "tests/contract"):
        (tree / folder).mkdir(parents=True)
    (tree / "pytest.ini").write_text(
        "[pytest]\nmarkers = slow: none\npythonpath = .\naddopts = --import-mode=importlib\n"
    )
    (tree / "contract" / "one.py").write_text("WAIT = 5\ndef twice(n):\n    return n * 2\n")
    (tree / "tests" / "contract" / "test_one.py").write_text(
        f"import sys\nsys.path.insert(0, '.')\nfrom contract.one import twice\ndef test_twice(): assert twice(3) == {right}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", TRIAL, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
    )
    lines = done.stdout.splitlines()
    assert lines[-1:] or not done.stderr, done.stderr
    if said:
        assert sum(line.startswith(said) for line in lines) == 4
        return
    assert lines == [
        "survived after tests WAIT = 5 -> WAIT = 4",
        "equivalent at once WAIT = 5 -> WAIT = 6",
        "noticed after tests return n * 2 -> return n * 1",
        "noticed after tests return n * 2 -> return n * 3",
        "noticed after tests return n * 2 -> return n / 2",
    ]
