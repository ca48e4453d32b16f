"""A study of three models: settings in five sizes, their comparison with DFT and experiment, run folders."""
