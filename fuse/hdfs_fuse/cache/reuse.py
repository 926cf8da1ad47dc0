"""Which cached blocks are still worth their place: the policy behind eviction, without any I/O.

Training reads a data set again and again, each time in another order. Under LRU a set of twice the cache hits
once in eight reads; keeping what is there, and letting the rest pass by uncached, hits once in two. So a full
cache gives up a block only when it looks dead: not used for longer than twice the longest time that lately passed
between two uses of any block. With no hit for that long, the workload has changed: then the oldest go first, and
the cache fills with what is read now.
"""

from dataclasses import dataclass

# How much of the longest interval remains after each hit: a job with longer epochs is forgotten after some
# hundred hits of the next one.
_DECAY = 0.98
# Blocks are kept for this many times the longest interval seen. In random orders a block's next use comes at
# most two epochs after its last.
_PATIENCE = 2.0
# Last uses are written down only this often for one block, so ages are uncertain by as much.
TOUCH_INTERVAL_S = 5.0


@dataclass(slots=True)
class ReuseClock:
    """What hits have taught.

    Attributes:
        longest_s: the longest time between two uses of a block, decaying with each hit; 0 when nothing is known.
        last_hit_s: when the last hit came, seconds since the epoch.
    """

    longest_s: float = 0.0
    last_hit_s: float = 0.0

    def hit(self, last_use_s: float, now_s: float) -> None:
        """A block that was used at `last_use_s` is used again."""
        self.longest_s = max(now_s - last_use_s, self.longest_s * _DECAY)
        self.last_hit_s = max(self.last_hit_s, now_s)

    def is_alive(self, last_use_s: float, now_s: float) -> bool:
        """Whether a block last used at `last_use_s` may well be used again."""
        horizon_s = _PATIENCE * self.longest_s + TOUCH_INTERVAL_S
        has_hits = self.last_hit_s > 0 and now_s - self.last_hit_s <= horizon_s
        return has_hits and now_s - last_use_s <= horizon_s
