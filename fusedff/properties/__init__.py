"""What a force field predicts: at 0 K from any ASE calculator, at temperature from molecular dynamics."""
