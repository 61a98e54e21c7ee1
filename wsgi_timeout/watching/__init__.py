"""One listener and one housekeeper for each process."""
