"""The rules of the house: who may import whom, what may not be heavy, how long a file may be, and that nothing is half-added."""

import ast
import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from contract.recipe import Recipe
from contract.settings.base import Settings
from contract.stages import STAGES

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "deepspeed", "transformers", "pyspark", "pandas"}
LIGHT_PLACES = ("contract", "plugins", "dags")
CODE = ("contract", "pipelines", "training", "evals", "plugins", "dags", "reports", "demo", "perf", "mutants")
MAX_DAG_LINES, MAX_FUNCTION_LINES = 60, 50
PRIVATE = {  # names that libraries keep to themselves, where they offer no other way; another version may lack them
    "training/engine/compiled.py": {"_no_split_modules"},
    "training/engine/ranks.py": {"__compatible_ops__"},
    "training/engine/zero.py": {"_global_grad_norm", "_tp_partition"},
    "training/models/documents.py": {"_attn_implementation"},
    "training/models/reader.py": {"_supports_sdpa"},
    "training/models/sight.py": {"_attn_implementation", "_supports_sdpa"},
    "training/models/experts.py": {"_can_record_outputs"},
    "training/models/llama.py": {
        "_attn_implementation",
        "_supports_flash_attn",
        "_supports_flex_attn",
        "_supports_sdpa",
    },
    "pipelines/spark/session.py": {"_active_spark_context"},
    "pipelines/html/maintext.py": {"_prepare_tree"},
}
BARREN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def sources(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def named(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imported_at_load(tree: ast.AST) -> Iterator[str]:
    """Top packages that importing a module imports: every import that does not stand in a function."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.Import():
                yield from (alias.name.partition(".")[0] for alias in node.names)
            case ast.ImportFrom():
                yield (node.module or "").partition(".")[0]
        yield from imported_at_load(node)


def test_arrows_between_the_planes():
    """contract imports nothing of ours, the planes never import each other, and so on: the rules stand in pyproject.toml."""
    command = Path(sys.executable).with_name("lint-imports")
    checked = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("plane", ["pipelines", "training"])
def test_rooms_import_no_stage(plane):
    """A stage uses rooms; a room that used a stage would tie together all that use the room."""
    stages = {f"{plane}.{name}" for name in (*STAGES, "check", "__main__")}
    rooms = [file for file in sources(plane) if file.parent.name != plane]
    assert len(rooms) > 10
    assert {named(file): found for file in rooms if (found := sorted(stages & named_modules(file.read_text())))} == {}


def named_modules(text: str) -> set[str]:
    """All modules that a file may mean by its imports: `from a import b` may mean a and a.b."""
    nodes = list(ast.walk(ast.parse(text)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    from_ = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return plain | {f"{node.module}{end}" for node in from_ for end in ("", *(f".{one.name}" for one in node.names))}


def test_a_stage_is_seen_however_it_is_imported():
    text = "from training import gate\ndef f():\n  import pipelines.filter\nfrom pipelines.check import check"
    assert {"training.gate", "pipelines.filter", "pipelines.check"} <= named_modules(text)


@pytest.mark.parametrize("file", sources(*LIGHT_PLACES), ids=named)
def test_nothing_heavy_is_imported_at_module_level(file):
    assert HEAVY.isdisjoint(imported_at_load(ast.parse(file.read_text())))


def test_heavy_import_rule_sees_through_nesting():
    tree = ast.parse(
        "try:\n  if x:\n    import torch.nn\nexcept E: ...\ndef f():\n  import pandas\nclass C:\n  from pyspark import sql"
    )
    assert sorted(imported_at_load(tree)) == ["pyspark", "torch"]


def test_importing_the_light_places_loads_nothing_heavy():
    """The same by experiment: in a fresh interpreter, also through what these modules import themselves."""
    modules = [
        named(file).removeprefix("plugins/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for file in sources("contract", "plugins")
        if file.name != "__main__.py"
    ]
    script = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(sorted(name for name in {sorted(HEAVY)!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_reports_load_neither_a_compiler_nor_an_engine():
    """They also run in a web server, which starts in a second and may have none of these installed."""
    script = "import sys, reports.report, reports.why; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "pipelines.rules.decide" in loaded
    assert not loaded & {"numba", "scipy", "airflow", *HEAVY}


@pytest.mark.parametrize("file", sources("dags"), ids=named)
def test_dags_contain_no_work(file):
    """A DAG file draws a graph: it opens no plane and no file, and stays short."""
    text = file.read_text()
    assert {"pipelines", "training", "subprocess", "requests"}.isdisjoint(imported_at_load(ast.parse(text)))
    assert len(text.splitlines()) <= MAX_DAG_LINES


@pytest.mark.parametrize("name", STAGES)
def test_stage_has_row_file_and_recipe_section(name):
    stage = STAGES[name]
    plane = "pipelines" if stage.plane == "spark" else "training"
    file = ROOT / plane / f"{name}.py"
    assert file.exists(), f"{name} is in the stage table, so {plane}/{name}.py must exist"
    assert issubclass(Recipe.model_fields[name].annotation, Settings)
    functions = {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}
    assert "run" in functions, f"{named(file)} needs run(job)"
    assert set(stage.reads) <= set(STAGES)


def test_no_recipe_section_or_stage_file_without_a_row():
    sections = {
        name
        for name, field in Recipe.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
    }
    assert sections - {"spark", "feedback"} == set(STAGES)
    for plane in ("pipelines", "training"):
        with_run = {
            file.stem
            for file in (ROOT / plane).glob("*.py")
            if any(
                isinstance(node, ast.FunctionDef) and node.name == "run" for node in ast.parse(file.read_text()).body
            )
        }
        assert with_run <= set(STAGES), f"{plane}: {with_run - set(STAGES)} have run(job) but no row in the stage table"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_reads_no_setting_past_the_table(name):
    """What it read of the whole recipe would be in no fingerprint: it has `job.settings` and `job.setting`."""
    plane = "pipelines" if STAGES[name].plane == "spark" else "training"
    tree = ast.parse((ROOT / plane / f"{name}.py").read_text())
    assert not {"recipe", "run", "_run"} & {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_stage_table_is_in_order():
    seen: set[str] = set()
    for name, stage in STAGES.items():
        assert set(stage.reads) <= seen, f"{name} stands before what it reads"
        seen.add(name)


@pytest.mark.parametrize("file", sources(*CODE), ids=named)
def test_functions_are_short_and_modules_say_what_they_are(file):
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree), "a module opens with what it is"
    long = [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert long == []
    assert file.stem not in BARREN_NAMES, "name a module after what it does"


def private_names(tree: ast.AST) -> set[str]:
    """Names with a leading underscore that a module uses of what it did not make itself."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    usual = {"_exit", "_replace", "__name__", "__file__", *dir(type), *dir(BaseException)}  # documented
    used = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                continue
            case ast.Attribute(attr=name):
                used.add(name)
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]
            ):
                used.add(name)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] not in CODE:
                used |= {*module.split("."), *(alias.name for alias in node.names)}
            case ast.Import():
                used |= {part for alias in node.names for part in alias.name.split(".")}
    return {name for name in used if name.startswith("_")} - own - usual


@pytest.mark.parametrize("file", sources("contract", "pipelines", "training", "reports"), ids=named)
def test_private_names_of_libraries_are_used_where_the_table_says(file):
    assert private_names(ast.parse(file.read_text())) == PRIVATE.get(named(file), set())


def test_private_name_rule_sees_every_way_to_use_one():
    tree = ast.parse(
        "from torch._C import _jit\nimport pyarrow._fs\nfrom contract.plan import _own\n"
        "engine.optimizer._linked = False\ngetattr(config, '_attn')\nself._mine\ndef _made(): ...\nhere._made()\n"
        "os._exit(1)\ntype(error).__name__\nerror.__cause__\nops.__compatible__\nnode.public"
    )
    assert private_names(tree) == {"_C", "_jit", "_fs", "_linked", "_attn", "__compatible__"}


@pytest.mark.parametrize("package", ["contract", "pipelines", "training", "evals", "reports", "gristmill_airflow"])
def test_packages_are_installed_from_this_checkout(package):
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    assert ROOT in Path(found.origin).parents


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Package -> (version, the sha256 of each of its files) of a lock file."""
    text = (ROOT / name).read_text()
    found: dict[str, tuple[str, list[str]]] = {}
    for entry in text.replace("\\\n", " ").splitlines():
        pin, *hashes = entry.split()
        package, _, version = pin.partition("==")
        found[canonicalize_name(package.partition("[")[0])] = version, hashes
    return found


@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.glob("*.lock")))
def test_lock_files_name_versions_and_hashes_and_no_registry(name):
    for package, (version, hashes) in locked(name).items():
        assert package.replace("-", "").isalnum(), package
        assert version.removesuffix("+cpu").replace(".", "").isalnum(), (package, version)
        assert hashes, package
        assert all(len(one.removeprefix("--hash=sha256:")) == 64 for one in hashes), package


def test_what_is_installed_on_any_machine_holds_no_gpu_package():
    pins = locked("requirements.lock")
    assert not [name for name in pins if name.startswith(("nvidia", "cuda", "triton", "torch", "gristmill"))]
    assert {name: version for name, (version, _) in locked("requirements-cpu.lock").items()} == {"torch": "2.13.0+cpu"}
    assert locked("requirements-cuda.lock")["torch"][0] == "2.13.0"


def test_lock_files_satisfy_the_project():
    """Every dependency that pyproject.toml names is pinned, to a version that it allows; the tools of the tests apart, out of the image.

    The extra `cuda` needs a GPU's compiler and is in no lock file.
    """
    pins = {
        name: version for lock in ("", "-cuda") for name, (version, _) in locked(f"requirements{lock}.lock").items()
    }
    tools = {name: version for name, (version, _) in locked("requirements-test.lock").items()}
    assert not pins.keys() & tools.keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    planes = [text for name in ("spark", "train", "airflow", "evals") for text in extras[name]]
    assert set(extras) == {"spark", "train", "airflow", "evals", "cuda", "dev"}
    for texts, held in (([*project["dependencies"], *planes], pins), (extras["dev"], pins | tools)):
        for text in texts:
            wanted = Requirement(text)
            name = canonicalize_name(wanted.name)
            if name == "gristmill":
                continue
            assert name in held, f"{wanted.name} is in no lock file"
            assert wanted.specifier.contains(held[name]), f"{name}=={held[name]} does not satisfy {wanted}"
