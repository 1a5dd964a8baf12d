"""What the Spark plane, the GPU plane and Airflow agree on: recipe, stages, store, manifest, metrics, token shards."""
