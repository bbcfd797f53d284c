"""The local OpenAI endpoint of a guest: an HTTP server on loopback in front of a mesh."""
