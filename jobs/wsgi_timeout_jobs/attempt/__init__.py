"""One attempt of a call: the request, the handler, where its response goes."""
