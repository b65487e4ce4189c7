"""`python -m agents`: one worker process."""

from agents.worker import main

if __name__ == "__main__":
    main()
