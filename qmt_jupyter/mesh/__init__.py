"""Finding and reaching a peer: the endpoint, the local network, and both of them raced."""
