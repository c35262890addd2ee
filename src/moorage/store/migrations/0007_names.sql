-- The page of one name in one final state comes from its own index, however many had that name.
CREATE INDEX runs_ended ON runs (name, state, id) WHERE ended_at IS NOT NULL;

-- How long each server, when it leads, may give no sign of life: the others go by that.
ALTER TABLE servers ADD COLUMN lease DOUBLE PRECISION NOT NULL DEFAULT 0;
