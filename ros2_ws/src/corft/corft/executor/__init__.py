"""What executor_node is made of."""
