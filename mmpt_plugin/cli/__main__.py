"""`python -m mmpt_plugin.cli`, the same as `mmpt`."""

import sys

from mmpt_plugin.cli import main

if __name__ == "__main__":
    sys.exit(main())
