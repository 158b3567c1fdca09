"""Coverage-guided fuzzing of what is parsed: `make fuzz`, with atheris; it runs on Linux."""
