"""What CI runs, a person runs: `./run.sh help` lists it."""
