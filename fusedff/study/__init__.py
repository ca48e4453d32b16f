"""The titanium study: settings, comparison of the three models, run folders, command line."""
