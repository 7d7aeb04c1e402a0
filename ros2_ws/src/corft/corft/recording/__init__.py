"""What the guided recorder is made of."""
