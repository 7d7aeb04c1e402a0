"""The fault campaign: `make faults` breaks a live graph in many ways and measures what the arm does."""
