"""Tables of measurements: state points to train on, references to compare with; adiabatic and isothermal constants."""
