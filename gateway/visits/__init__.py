"""Visits: requests to servers inside sandboxes, each under a host name of its own.

Why so: docs/decisions/0007-previews-have-origins-of-their-own.md
"""
