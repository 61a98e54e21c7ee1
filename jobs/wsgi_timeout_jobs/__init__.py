"""The worker half: what runs the calls."""
