"""The command line: `python -m keras_transfer --help`."""

import sys

from keras_transfer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
