"""`make demo` and `make stop`: a client of Airflow's REST API that a newcomer runs first. Nothing else imports it."""
