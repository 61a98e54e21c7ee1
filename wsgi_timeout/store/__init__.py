"""All that touches Redis: keys, scripts, records, streams."""
