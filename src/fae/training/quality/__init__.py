"""How good a model is beyond AUC and log loss: calibration, groups, unknown ids, and what needs no model."""
