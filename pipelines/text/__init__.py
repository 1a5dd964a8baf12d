"""Pure functions on texts, independent of Spark."""
