"""One file per resource: its bodies, then its endpoints."""
