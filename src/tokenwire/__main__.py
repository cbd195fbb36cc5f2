"""``python -m tokenwire`` is the command ``tokenwire``."""

from tokenwire.cli.main import main

if __name__ == "__main__":
    main()
