"""The stages of a request in the web process, in its order."""
