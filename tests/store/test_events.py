from __future__ import annotations

from store import events
from store.session import Database
from tests.store.helpers import claim, history, submit, succeed


def test_events_follow_a_sequence_number(database: Database):
    submit(database)
    other = submit(database)
    held = claim(database)
    succeed(database, held)
    all_of_it = history(database, held.job_id)
    assert [event.type for event in all_of_it] == ["job.queued", "job.started", "job.succeeded"]
    with database.read() as session:
        rest = events.after(session, held.job_id, after_seq=all_of_it[0].seq)
        assert [event.seq for event in rest] == [event.seq for event in all_of_it[1:]]
        assert len(events.after(session, held.job_id, limit=2)) == 2
        assert events.after(session, held.job_id, after_seq=all_of_it[-1].seq) == []
        assert {event.job_id for event in events.after(session, other)} == {other}
