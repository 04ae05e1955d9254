"""
For a relay that finds what is lost soon: `celery -A orderflow worker -I tests.chaos.watchful`.

GRACE, in seconds, is how long what has left its queue may take until it is heard of.
"""

import datetime as dt
import os

from outbox.relay import probes

probes.GRACE = dt.timedelta(seconds=float(os.environ["GRACE"]))
probes.UNHEARD_OF = probes.LONGEST_GAP = dt.timedelta(seconds=1)
