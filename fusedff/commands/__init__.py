"""The command line: train, evaluate, convert, label, propose and release."""
