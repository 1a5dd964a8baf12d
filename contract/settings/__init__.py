"""The settings of every stage: one small frozen class each, composed by `contract.recipe.Recipe`.

Thresholds cite their source; where sources differ, the comment says whose value it is. A field made with `runtime_only`
controls how fast or where a stage runs and never what it produces, so it stays out of the stage's fingerprint.
"""
