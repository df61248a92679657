"""The line between gateway and workflow: everything Redis, everything Celery."""
