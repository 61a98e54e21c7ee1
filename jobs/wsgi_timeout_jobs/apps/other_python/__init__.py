"""An app under another interpreter, in a process beside its worker: `--python PATH`."""
