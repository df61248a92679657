"""Local servers that speak the wire protocols of model providers, over real sockets."""
