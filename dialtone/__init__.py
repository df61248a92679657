"""The Dialtone client: a Python library and a terminal program over the public API."""
