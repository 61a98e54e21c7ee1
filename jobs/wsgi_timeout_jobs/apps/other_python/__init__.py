"""An app under another interpreter, in a process of its own for each worker: `--python PATH`."""
