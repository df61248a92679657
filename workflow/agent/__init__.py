"""The agent: plan, turns, context, limits."""
