"""What was measured, from tables: state points to train on, references to compare with; adiabatic and isothermal."""
