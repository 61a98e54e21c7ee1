"""The pages that people see: pure rendering, no Redis and no request handling."""
