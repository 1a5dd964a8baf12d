"""The assets that join the DAGs. A crawl's name is their partition key, and carries on from each to the next."""

from airflow.sdk import Asset

CRAWL = Asset(name="crawl", uri="gristmill://crawl", group="gristmill")
CORPUS = Asset(name="corpus", uri="gristmill://corpus", group="gristmill")
PRETRAINED = Asset(name="pretrained", uri="gristmill://pretrained", group="gristmill")
ALIGNED = Asset(name="aligned", uri="gristmill://aligned", group="gristmill")
EXPORTED = Asset(name="exported", uri="gristmill://exported", group="gristmill")
RESOLVED = Asset(
    name="run", uri="gristmill://run", group="gristmill"
)  # starts no DAG; its events become the notes of runs

SEEN = "seen"  # key in CRAWL's state store, kept by the DAG crawl_refresh; gristmill_airflow.known says what it holds
TOLD = "told"  # beside it: {"run": "", "recipe_name": "", "overrides": []}, what a person last told crawl_refresh
