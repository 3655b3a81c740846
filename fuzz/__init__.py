"""Fuzzing of every parser of what strangers send: `make fuzz`. Only `__main__` needs atheris."""
