"""The HTTP API: thin views that authenticate, read the body strictly, call the one step, and say what it came to."""
