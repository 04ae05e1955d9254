"""
For a relay that soon notices lost messages: `celery -A orderflow worker -I tests.chaos.watchful`.

GRACE is the time in seconds within which a message that has left its queue must be accounted for.
"""

import datetime as dt
import os

from outbox.relay import probes

probes.GRACE = dt.timedelta(seconds=float(os.environ["GRACE"]))
probes.UNHEARD_OF = probes.LONGEST_GAP = dt.timedelta(seconds=1)
