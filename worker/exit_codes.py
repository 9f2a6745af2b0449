"""How a child tells its supervisor how it ended; any other code is a crash."""

from typing import Final

# The row says how it ended.
DONE: Final = 0
# The row belongs to someone else by now, or the job was cancelled: nothing to do.
LEASE_LOST: Final = 71
# The device is gone or computes no more, which is not the job's fault.
DEVICE_LOST: Final = 74  # EX_IOERR of sysexits.h
# Told to stop, or the database stayed away: the job is to be tried again.
HANDED_BACK: Final = 75  # EX_TEMPFAIL of sysexits.h
# The same, for a tuning that waits.
GAVE_WAY: Final = 76
