"""Which engine lives hold which blocks of which prompts.

    capacity.py     how much an engine can hold
    chain.py        a prompt -> its blocks, each hashed with everything before it
    index.py        block hash -> who holds it; the longest prefix that each life holds
    slots.py        a life <-> the bit that stands for it in the index
    frames.py       changes on the wire
    snapshots.py    one life at rest
    generations.py  what one life holds as its placements tell, bounded by the engine's capacity
    prefix.py       the namespace of what placements tell, kv.py of what engines tell; slices.py cuts changes
    early.py        changes of lives that are not known yet
    holdings.py     all of it: one replica of both namespaces

Pure and synchronous. The collectors use it too, and without numpy.
"""
