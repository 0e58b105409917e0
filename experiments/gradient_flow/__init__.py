"""Three losses move a disc onto two moons."""
