"""Where the equations live: lattices, the brain's mesh, and the way between grid and mesh."""
