"""The settings that belong to no stage: a run's name, its store, its crawls, and how Spark runs."""

from contract.settings.base import Settings, Text, Uri, runtime_only
from contract.settings.feedback import Feedback
from contract.settings.spark import Spark


class RunSettings(Settings):
    """What a recipe says of the run as a whole. The sections of the stages follow in the classes that inherit it."""

    name: Text = runtime_only("unnamed")
    store: Uri = runtime_only("home/store")
    """A folder or `s3://bucket/prefix`."""
    snapshots: tuple[Text, ...] = ()
    """The crawls that make the corpus. If empty, the newest that the source offers."""
    spark: Spark = runtime_only(Spark())
    feedback: Feedback = runtime_only(Feedback())
