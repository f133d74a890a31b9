"""``python -m pwm`` is the same as the ``pwm`` command."""

import sys

from pwm.cli import main

sys.exit(main())
