"""The assets that join the DAGs. A crawl's name is their partition key, and carries on from each to the next."""

from airflow.sdk import Asset

CRAWL = Asset(name="crawl", uri="gristmill://crawl", group="gristmill")
CORPUS = Asset(name="corpus", uri="gristmill://corpus", group="gristmill")
PRETRAINED = Asset(name="pretrained", uri="gristmill://pretrained", group="gristmill")
ALIGNED = Asset(name="aligned", uri="gristmill://aligned", group="gristmill")
EXPORTED = Asset(name="exported", uri="gristmill://exported", group="gristmill")

SEEN = "seen"  # key in CRAWL's state store, kept by the DAG crawl_refresh: {source: {"run": the last poll's, "offered": [], "fresh": []}}
