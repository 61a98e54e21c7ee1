"""What one worker process shares with its parent, and how its handlers are interrupted."""
