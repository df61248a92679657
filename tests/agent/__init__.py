"""Tests of the agent through its run, on the memory sandbox and the scripted model."""
