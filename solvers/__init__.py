"""How the equations are solved: time stepping, linear algebra, sampling and training."""
