"""Speed and memory on this machine: models with random weights, filled caches, and what the machine itself can do."""
