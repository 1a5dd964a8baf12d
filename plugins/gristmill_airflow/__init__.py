"""Gristmill inside Airflow: operators, timetables and assets.

Importing the package loads nothing; `plugin` registers it.
"""
