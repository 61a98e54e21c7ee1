"""Running it: the command line, the servers, the configuration of gunicorn."""
