"""Decisions: plain functions of the cluster, an event and the time, which return effects.

They change the cluster at once and say what must follow. The engine carries the effects out in
order, and lets nothing leave the process (replies, messages) before all writes of this and every
earlier decision are durable.
"""

from moorage.core.reactor.answers import on_answers
from moorage.core.reactor.cancel import on_cancel
from moorage.core.reactor.delete import on_delete, on_dropped, on_expire, on_expire_jobs
from moorage.core.reactor.drain import on_drain, on_resume
from moorage.core.reactor.fleets import (
    on_apply_fleet,
    on_delete_fleet,
    on_host,
    on_host_gone,
)
from moorage.core.reactor.health import on_health
from moorage.core.reactor.mend import on_boot
from moorage.core.reactor.nodes import on_hello, on_node_down, on_node_lost
from moorage.core.reactor.reports import on_report
from moorage.core.reactor.schedule import schedule
from moorage.core.reactor.storages import (
    on_add_store,
    on_delete_storage,
    on_delete_store,
    on_flushed,
    on_record_storage,
    on_storage_gone,
    on_storage_made,
    on_storage_seen,
    on_storage_trouble,
)
from moorage.core.reactor.submit import Submitted, on_submit, submission
from moorage.core.reactor.timers import on_timer

__all__ = [
    "Submitted",
    "on_add_store",
    "on_answers",
    "on_apply_fleet",
    "on_boot",
    "on_cancel",
    "on_delete",
    "on_delete_fleet",
    "on_delete_storage",
    "on_delete_store",
    "on_drain",
    "on_dropped",
    "on_expire",
    "on_expire_jobs",
    "on_flushed",
    "on_health",
    "on_hello",
    "on_host",
    "on_host_gone",
    "on_node_down",
    "on_node_lost",
    "on_record_storage",
    "on_report",
    "on_resume",
    "on_storage_gone",
    "on_storage_made",
    "on_storage_seen",
    "on_storage_trouble",
    "on_submit",
    "on_timer",
    "schedule",
    "submission",
]
