"""The program that runs inside a remote sandbox: one short-lived process for each of our calls.

Its sources travel with the call (`remote_call.py`), so nothing has to be installed and no version can be stale. They
need Python 3.9 and its standard library there, nothing else, and import nothing of ours but each other.
"""
