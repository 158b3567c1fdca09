"""What is measured, and against whom; each module is a command that names its conditions."""
