"""The files that come with Gristmill beside its packages: recipes and DAGs."""

from pathlib import Path


def shipped(kind: str) -> Path:
    """The folder `recipes` or `dags`: in a checkout in its root, in an installed wheel below `gristmill`."""
    root = Path(__file__).resolve().parents[1]
    installed = root / "gristmill" / kind
    return installed if installed.is_dir() else root / kind
