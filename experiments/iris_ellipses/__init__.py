"""Three ellipsoids learn the three species of Iris."""
