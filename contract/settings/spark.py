"""The settings of Spark: where the jobs run, with how much memory, and with which properties."""

import re
from typing import Annotated

from pydantic import AfterValidator

from contract.settings.base import Pieces, Settings, Text, runtime_only

MEMORY = re.compile(r"([1-9][0-9]{0,12})([kmgt])", re.IGNORECASE)
LEAST_MEMORY, MOST_MEMORY = 512 << 20, 64 << 40  # Spark needs at least 450 MiB; no machine has more than 64 TiB
MASTER = re.compile(
    r"local|local\[(?P<cores>\*|[1-9]\d{0,8})(,[1-9]\d{0,4})?\]|local-cluster\[\d{1,4},\d{1,4},\d{1,8}\]|yarn"
    r"|spark://[^\s/,:]+:\d{1,5}(,[^\s/,:]+:\d{1,5})*|k8s://(https?://)?[^\s/]+/?"
)
MOST_CORES = 1024  # each core runs a Python process


def memory_bytes(text: str) -> int:
    """Bytes of an amount in Java's notation: 512m, 4g.

    Raises ValueError for other text, and for amounts with which Spark cannot start.
    """
    match = MEMORY.fullmatch(text)
    if not match:
        raise ValueError(f"should be a whole number and k, m, g or t, as in 4g, got {text[:80]!r}")
    size = int(match[1]) << {"k": 10, "m": 20, "g": 30, "t": 40}[match[2].lower()]
    if not LEAST_MEMORY <= size <= MOST_MEMORY:
        raise ValueError(f"should be between 512m and 64t, got {text}")
    return size


def _memory(text: str) -> str:
    memory_bytes(text)
    return text


def _master(text: str) -> str:
    match = MASTER.fullmatch(text)
    if not match:
        raise ValueError(
            f"should be local[*], local[N], spark://host:port, k8s://https://host:port or yarn, got {text[:80]!r}"
        )
    if (match["cores"] or "*") != "*" and int(match["cores"]) > MOST_CORES:
        raise ValueError(f"should name at most {MOST_CORES} cores, got {text}")
    return text


Master = Annotated[str, AfterValidator(_master)]


# Keys of secrets, from spark.redaction.regex and Azure's keys; and keys that only name a secret or its file.
SECRET_KEY = re.compile(r"secret|passw(or)?d|token(?!iz)|(access|account)[.]?key", re.IGNORECASE)
NAMES_A_SECRET = re.compile(r"spark\.kubernetes\.(driver|executor)\.secret(s|KeyRef)\.|.*File$")


def _sets_a_secret(value: str) -> bool:
    """Whether a value passes a secret to Java, in an option such as `-Dstore.password=x`."""
    names = (name for word in value.split() for name in word.split("=")[:-1])
    options = (name.partition("-D")[2] for name in names)
    return any(SECRET_KEY.search(option) and not NAMES_A_SECRET.match(option) for option in options)


def _conf(conf: dict[str, str]) -> dict[str, str]:
    """Refuse properties that hold secrets, because a run's recipe is stored and shown."""
    for key, value in conf.items():
        secret = SECRET_KEY.search(key) and not NAMES_A_SECRET.match(key) and value not in ("true", "false")
        if secret or _sets_a_secret(value):
            raise ValueError(
                f"{key[:80]} would be stored with the run for all to read; set it in spark-defaults.conf, "
                "or hand it to Kubernetes as a secretKeyRef (docs/security.md)"
            )
    return conf


SparkConf = Annotated[dict[Text, Text], AfterValidator(_conf)]


class Spark(Settings):
    """Where and how the Spark jobs run. No setting here changes what they produce."""

    master: Master = runtime_only("local[*]")
    driver_memory: Annotated[str, AfterValidator(_memory)] = runtime_only("2g")
    executor_memory: Annotated[str, AfterValidator(_memory)] = runtime_only("4g")
    shuffle_partitions: Pieces = runtime_only(8)
    conf: SparkConf = runtime_only({})
    """Further Spark properties, for example a Kubernetes image. Properties that look like secrets are refused."""
