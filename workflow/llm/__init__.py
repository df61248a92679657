"""Access to language models behind one protocol."""
