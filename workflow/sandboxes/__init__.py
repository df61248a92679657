"""Where commands and files live: one protocol, several providers."""
