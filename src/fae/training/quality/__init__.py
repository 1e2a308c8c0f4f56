"""How good a model is: metrics, calibration, groups, unknown ids, what simple predictions reach."""
