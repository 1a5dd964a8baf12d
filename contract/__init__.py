"""What the Spark plane, the GPU plane and Airflow share: recipe, stages, store, manifest, metrics, token shards."""
