"""`python -m fedbucket`: the command line."""

from fedbucket.cli import main

main()
