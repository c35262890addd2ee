-- `ps --state` finds its page however many runs there are; names have their index since the first.
CREATE INDEX runs_by_state ON runs (state, id);
