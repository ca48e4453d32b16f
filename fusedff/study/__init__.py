"""The titanium study: settings of a run, comparison of the three models, run folders."""
