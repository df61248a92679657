"""The product itself; knows no server, no queue, no Redis."""
