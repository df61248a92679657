"""Puts the pieces together and takes one run to exactly one terminal event."""
