"""The proof: checks a run of payonce from outside. Nothing in here imports payonce, so the app is never its own only witness."""
