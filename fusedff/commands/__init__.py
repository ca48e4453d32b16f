"""What a terminal offers: train, evaluate, convert, label and release, and the command line itself."""
