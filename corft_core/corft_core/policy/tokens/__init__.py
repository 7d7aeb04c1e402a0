"""Actions as tokens: a causal token policy, and decoders that fix many tokens in one forward pass (PD-VLA)."""
