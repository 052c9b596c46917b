"""What a collector shows of itself: numbers for Prometheus, state for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from extproc.collect.changes import Changes
from extproc.collect.feeds import Feeds
from extproc.collect.ownership import Ownership
from extproc.collect.prefixes import Prefixes
from extproc.collect.snapshots import SnapshotWriter
from extproc.collect.watches import Watches
from extproc.state.records import label


@dataclass(frozen=True, slots=True)
class Condition:
    """The parts that are looked at."""

    ownership: Ownership
    watches: Watches
    feeds: Feeds
    prefixes: Prefixes
    changes: Changes
    snapshots: SnapshotWriter

    def readings(self) -> Mapping[str, float]:
        """The series of `counters.GAUGES` and `counters.TOTALS`."""
        counts = self.feeds.counts()
        running = [following.feed for following in self.feeds.running.values()]
        values: dict[str, float] = {
            "pods": len(self.ownership.owned),
            "pods_failing": sum(one.failing is not None for one in self.watches.observers),
            "members": len(self.ownership.members),
            "leases_current": self.ownership.current,
            "kv_feeds": sum(feed.source is not None for feed in running),
            "kv_blocks": sum(feed.blocks for feed in running),
            "kv_lag_seconds": max((feed.counts.lag_s for feed in running), default=0.0),
            "prefix_lives": len(self.prefixes.lives),
            "kv_events": counts.batches,
            "kv_changes": counts.blocks,
            "kv_gaps": counts.gaps,
            "kv_replays": counts.replays,
            "kv_clears": counts.clears,
            "entries": self.changes.published,
            "dropped_bytes": self.changes.dropped,
            "snapshots": self.snapshots.written,
        }
        return {f"kvoy_collector_{name}": float(value) for name, value in values.items()}

    def state(self) -> Mapping[str, Any]:
        """As JSON: who is alive, and each pod that is ours as it was last observed."""
        return {
            "members": sorted(self.ownership.members),
            "pods": {
                label(observer.site.pod): [msgspec.to_builtins(one) for one in observer.statements()]
                for observer in self.watches.observers
                if self.ownership.current
            },
        }
