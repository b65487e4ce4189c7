"""`python -m pipeline.cli`: the command line, for processes of our own."""

from pipeline.cli.main import main

if __name__ == "__main__":
    main()
