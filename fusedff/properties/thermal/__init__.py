"""Properties at finite temperature, from molecular dynamics with a potential."""
