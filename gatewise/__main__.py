"""`python -m gatewise`."""

from gatewise.cli import main

if __name__ == "__main__":
    main()
