"""What the agent can do: typed arguments, typed results, one small file per family."""
