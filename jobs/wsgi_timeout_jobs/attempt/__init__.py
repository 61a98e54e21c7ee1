"""One attempt of a call: the request, the handler, and the recording of its response."""
