"""Every route of the HTTP API."""

from moorage.server.routes import (
    blobs,
    events,
    fleets,
    growth,
    logs,
    nodes,
    objectstore,
    plan,
    runs,
    storages,
    stores,
    system,
)

ROUTES = (
    *system.ROUTES,
    *runs.ROUTES,
    *plan.ROUTES,
    *logs.ROUTES,
    *events.ROUTES,
    *nodes.ROUTES,
    *fleets.ROUTES,
    *blobs.ROUTES,
    *growth.ROUTES,
    *stores.ROUTES,
    *objectstore.ROUTES,
    *storages.ROUTES,
)
