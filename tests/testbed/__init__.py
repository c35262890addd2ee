"""Several hosts on this one machine, for system tests: docs/testbed.md says how to use them.

`bed` is what tests import. `guardian` is a process of its own that makes and removes what a bed
has outside of the test's process; it imports only the standard library and `cgroups`.
"""
