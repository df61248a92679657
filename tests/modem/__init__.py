"""Tests of the line between gateway and workflow, on a real server."""
