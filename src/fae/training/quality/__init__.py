"""How good a model is: metrics, calibration, groups, unknown ids, and what predictions without a model reach."""
