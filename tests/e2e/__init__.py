"""The whole line as separate processes, driven by HTTP and SSE alone."""
