"""Which endpoints of a ModelServer serve a request, and in which order.

placement.py        the result: endpoints, best first, and what was known of each
least_in_flight.py  fewest requests in flight first
"""
