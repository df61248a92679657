"""HTTP, SSE and WebSocket: owns requests and callers; does no model, tool or sandbox work."""
