"""How fast fusedff is: against chemtrain (`python -m benchmarks`), with size (`scaling`), and in memory (`memory`)."""
