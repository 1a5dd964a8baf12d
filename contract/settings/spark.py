"""Where the Spark jobs run, and with what."""

import re
from typing import Annotated

from pydantic import AfterValidator

from contract.settings.base import Pieces, Settings, Text, runtime_only

MEMORY = re.compile(r"([1-9][0-9]{0,12})([kmgt])", re.IGNORECASE)
LEAST_MEMORY, MOST_MEMORY = 512 << 20, 64 << 40  # Spark wants 450 MiB at least; no machine has more than 64 TiB
MASTER = re.compile(
    r"local|local\[(?P<cores>\*|[1-9]\d{0,8})(,[1-9]\d{0,4})?\]|local-cluster\[\d{1,4},\d{1,4},\d{1,8}\]|yarn"
    r"|spark://[^\s/,:]+:\d{1,5}(,[^\s/,:]+:\d{1,5})*|k8s://(https?://)?[^\s/]+/?"
)
MOST_CORES = 1024  # a Python process each


def memory_bytes(text: str) -> int:
    """Bytes of an amount as Java writes it: 512m, 4g. Raises ValueError for other text, and for what no Spark could start with."""
    found = MEMORY.fullmatch(text)
    if not found:
        raise ValueError(f"should be a whole number and k, m, g or t, as in 4g, got {text[:80]!r}")
    size = int(found[1]) << {"k": 10, "m": 20, "g": 30, "t": 40}[found[2].lower()]
    if not LEAST_MEMORY <= size <= MOST_MEMORY:
        raise ValueError(f"should be from 512m to 64t, got {text}")
    return size


def _memory(text: str) -> str:
    memory_bytes(text)
    return text


def _master(text: str) -> str:
    found = MASTER.fullmatch(text)
    if not found:
        raise ValueError(
            f"should be local[*], local[N], spark://host:port, k8s://https://host:port or yarn, got {text[:80]!r}"
        )
    if (found["cores"] or "*") != "*" and int(found["cores"]) > MOST_CORES:
        raise ValueError(f"should name at most {MOST_CORES} cores, got {text}")
    return text


Master = Annotated[str, AfterValidator(_master)]


# A secret by its key: as spark.redaction.regex has it, and Azure's. And what only names a secret.
SECRET_KEY = re.compile(r"secret|passw(or)?d|token(?!iz)|(access|account)[.]?key", re.IGNORECASE)
NAMES_A_SECRET = re.compile(r"spark\.kubernetes\.(driver|executor)\.secret(s|KeyRef)\.|.*File$")


def _sets_a_secret(value: str) -> bool:
    """Whether a value hands Java an option such as `-Dstore.password=x`."""
    names = (name for word in value.split() for name in word.split("=")[:-1])
    options = (name.partition("-D")[2] for name in names)
    return any(SECRET_KEY.search(option) and not NAMES_A_SECRET.match(option) for option in options)


def _conf(conf: dict[str, str]) -> dict[str, str]:
    """A run's recipe is stored and shown, so no property of it may be a secret."""
    for key, value in conf.items():
        secret = SECRET_KEY.search(key) and not NAMES_A_SECRET.match(key) and value not in ("true", "false")
        if secret or _sets_a_secret(value):
            raise ValueError(
                f"{key[:80]} would be stored with the run for all to read; set it in spark-defaults.conf, or hand it to "
                "Kubernetes as a secretKeyRef (docs/security.md)"
            )
    return conf


SparkConf = Annotated[dict[Text, Text], AfterValidator(_conf)]


class Spark(Settings):
    """Where the Spark jobs run; never what they produce."""

    master: Master = runtime_only("local[*]")
    driver_memory: Annotated[str, AfterValidator(_memory)] = runtime_only("2g")
    executor_memory: Annotated[str, AfterValidator(_memory)] = runtime_only("4g")
    shuffle_partitions: Pieces = runtime_only(8)
    conf: SparkConf = runtime_only({})
    """Further Spark properties, for example a Kubernetes image. Properties that look like secrets are refused."""
