"""The parent that supervises worker processes."""
