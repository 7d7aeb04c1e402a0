"""Public benchmarks as suites of tasks (`corft_core.evaluation.environment.Suite`). Their packages are optional."""
