"""What a target offers, and the adapters for endpoints and ASGI apps."""
