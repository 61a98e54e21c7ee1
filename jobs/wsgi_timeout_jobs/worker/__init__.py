"""A worker process: it loads the app, takes the calls of one queue, and runs them."""
