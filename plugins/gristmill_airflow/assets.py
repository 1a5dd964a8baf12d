"""The assets that connect the DAGs. Their partition key is the crawl's name, which each passes on to the next."""

from airflow.sdk import Asset

CRAWL = Asset(name="crawl", uri="gristmill://crawl", group="gristmill")
CORPUS = Asset(name="corpus", uri="gristmill://corpus", group="gristmill")
PRETRAINED = Asset(name="pretrained", uri="gristmill://pretrained", group="gristmill")
ALIGNED = Asset(name="aligned", uri="gristmill://aligned", group="gristmill")
EXPORTED = Asset(name="exported", uri="gristmill://exported", group="gristmill")
RESOLVED = Asset(
    name="run", uri="gristmill://run", group="gristmill"
)  # starts no DAG; its events become the notes of runs

SEEN = "seen"  # key in CRAWL's state store, written by the DAG crawl_refresh; its value: gristmill_airflow.known
TOLD = "told"  # beside it, the last form of crawl_refresh: {"run": "", "recipe_name": "", "overrides": []}
