"""What the simulated robot's nodes are made of."""
