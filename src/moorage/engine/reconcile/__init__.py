"""Works towards what should be, where that takes minutes and other machines: the hosts of fleets.

Level-triggered: nothing here is durable but the rows of hosts. A server that takes over finds
hosts half way, looks at each, and goes on; every step may be repeated.
"""
