//! One transaction of the writer: what is there, what was asked for, and which rows that makes.

use std::collections::HashMap;
use std::sync::Arc;

use super::database::{Bounds, Fault, NewRow, Session};
use crate::error::{Conflict, GAP_PREFIX, StoreError};
use crate::request::{Change, WriteRequest, WriteResponse};
use crate::types::{Event, EventKind, Key, KeyValue, Revision};

/// How many revisions of others are read at once.
pub(super) const CATCH_UP_REVISIONS: i64 = 500;

/// Why a transaction did not answer.
pub(super) enum Failure<E> {
    /// Nothing has changed.
    Clean(E),
    /// It may have: the connection broke during the commit.
    Open(E),
}

/// What a transaction came to.
pub(super) enum Turn {
    Done(Outcome),
    /// Revisions are missing before the present. Somebody may be about to write them.
    Missing,
    /// Others have written more than is read in passing.
    Behind,
}

#[derive(Default)]
pub(super) struct Outcome {
    pub answers: Vec<Result<WriteResponse, StoreError>>,
    /// What others have written, and then what was asked for.
    pub events: Vec<Arc<Event>>,
    /// How many of them are of others.
    foreign: usize,
    /// The newest rows of the keys of the others, which theirs replace.
    prev_ids: Vec<i64>,
    /// Events before them are gone, or the table is an older one. The last revision before them.
    pub forgotten: Option<Revision>,
}

/// Carries out all of the requests, `told` being what watchers know. `alone` fills what is missing.
pub(super) async fn transact<S: Session>(
    session: &S,
    requests: &[WriteRequest],
    told: Revision,
    alone: bool,
) -> Result<Turn, Failure<S::Error>> {
    let clean = Failure::Clean;
    session.begin(alone).await.map_err(clean)?;
    let keys: Vec<&Key> = requests.iter().map(|request| &request.key).collect();
    let (Bounds { revision, compacted }, rows) = session.newest(&keys).await.map_err(clean)?;
    let mut outcome = Outcome::default();
    let told = if compacted > told || revision < told {
        outcome.forgotten = Some(revision);
        revision
    } else {
        told
    };
    let mut base = revision;
    if base.get().saturating_sub(told.get()) > CATCH_UP_REVISIONS {
        if !requests.is_empty() {
            session.rollback().await.map_err(clean)?;
            return Ok(Turn::Behind);
        }
        base = Revision::new(told.get() + CATCH_UP_REVISIONS);
    }
    if base > told {
        let (_, foreign) = session.events(told.next(), base).await.map_err(clean)?;
        outcome.events = in_order(foreign);
        outcome.foreign = outcome.events.len();
    }
    let mut fillers = missing(told, base, &outcome.events);
    if !alone && !fillers.is_empty() {
        session.rollback().await.map_err(clean)?;
        return Ok(Turn::Missing);
    }
    let mut state = HashMap::new();
    for row in rows {
        state.insert(row.key.clone(), (row.id, row.into_live()));
    }
    if alone && !requests.is_empty() {
        let given_out = session.given_out(base).await.map_err(clean)?;
        fillers.extend(base.get() + 1..=given_out.get());
        base = base.max(given_out);
    }
    for request in requests {
        plan(request, &mut state, base, &mut outcome);
    }
    let count = outcome.events.len() - outcome.foreign;
    let ours = requests.is_empty() || session.claim(base, count, alone).await.map_err(clean)?;
    if !ours {
        session.rollback().await.map_err(clean)?;
        return Ok(Turn::Missing);
    }
    if count == 0 && fillers.is_empty() {
        session.commit().await.map_err(clean)?;
        return Ok(Turn::Done(outcome));
    }
    insert(session, &outcome, &fillers).await.map_err(clean)?;
    // From here on nobody knows what became of it if the connection breaks.
    let committed = session.commit().await;
    committed.map_err(|error| if error.leaves_commit_open() { Failure::Open(error) } else { Failure::Clean(error) })?;
    Ok(Turn::Done(outcome))
}

/// Adds rows for our events, and for revisions that nobody has.
async fn insert<S: Session>(session: &S, outcome: &Outcome, fillers: &[i64]) -> Result<(), S::Error> {
    let gap_names: Vec<String> = fillers.iter().map(|id| format!("{GAP_PREFIX}{id}")).collect();
    let mut rows: Vec<_> = fillers.iter().zip(&gap_names).map(|(id, name)| NewRow::filler(*id, name)).collect();
    for (event, prev_id) in outcome.events[outcome.foreign..].iter().zip(&outcome.prev_ids) {
        // What is no text was refused before it came here.
        let name = std::str::from_utf8(event.kv.key.as_bytes()).unwrap_or_default();
        rows.push(NewRow::event(event, name, *prev_id));
    }
    session.insert(&rows).await
}

/// The events of rows, in the order of their revisions.
pub(super) fn in_order(rows: Vec<super::row::EventRow>) -> Vec<Arc<Event>> {
    let mut events: Vec<_> = rows.into_iter().map(|row| Arc::new(row.into_event())).collect();
    events.sort_by_key(|event| event.revision());
    events
}

/// Revisions after `from` up to `to` that no row has.
pub(super) fn missing(from: Revision, to: Revision, rows: &[Arc<Event>]) -> Vec<i64> {
    let mut missing = Vec::new();
    let mut next = from.get() + 1;
    for row in rows {
        missing.extend(next..row.revision().get());
        next = row.revision().get() + 1;
    }
    missing.extend(next..=to.get());
    missing
}

/// Decides one request behind those that were decided before.
fn plan(
    request: &WriteRequest,
    state: &mut HashMap<Key, (i64, Option<KeyValue>)>,
    base: Revision,
    outcome: &mut Outcome,
) {
    let WriteRequest { key, change, precondition } = request;
    let own = i64::try_from(outcome.events.len() - outcome.foreign).unwrap_or_default();
    let revision = Revision::new(base.get() + own);
    let (prev_id, current) = state.get(key).cloned().unwrap_or((0, None));
    if !precondition.holds(current.as_ref()) {
        let conflict = Conflict { key: key.clone(), expected: *precondition, current, revision };
        outcome.answers.push(Err(StoreError::Conflict(Box::new(conflict))));
        return;
    }
    let event = match change {
        Change::Delete if current.is_none() => {
            outcome.answers.push(Ok(WriteResponse { revision, prev: None }));
            return;
        }
        Change::Delete => Event::delete(key.clone(), revision.next(), current),
        Change::Put { value, ttl } => Event::put(key.clone(), value.clone(), *ttl, revision.next(), current),
    };
    outcome.answers.push(Ok(WriteResponse { revision: event.revision(), prev: event.prev.clone() }));
    let live = (event.kind != EventKind::Delete).then(|| event.kv.clone());
    state.insert(key.clone(), (event.revision().get(), live));
    outcome.prev_ids.push(prev_id);
    outcome.events.push(Arc::new(event));
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::request::Precondition;
    use crate::types::Ttl;

    fn events(revisions: &[i64]) -> Vec<Arc<Event>> {
        let put = |revision| Event::put("k".into(), Bytes::new(), Ttl::NONE, Revision::new(revision), None);
        revisions.iter().map(|revision| Arc::new(put(*revision))).collect()
    }

    #[test]
    fn revisions_that_no_row_has_are_missing() {
        for (from, to, rows, expected) in [
            (3, 3, &[][..], &[][..]),
            (3, 5, &[4, 5], &[]),
            (3, 7, &[4, 6], &[5, 7]),
            (3, 6, &[6], &[4, 5]),
            (3, 5, &[], &[4, 5]),
            // A row may have come behind the state that the bound is of.
            (3, 5, &[4, 5, 7], &[6]),
        ] {
            assert_eq!(
                missing(Revision::new(from), Revision::new(to), &events(rows)),
                expected,
                "{from} {to} {rows:?}"
            );
        }
    }

    #[test]
    fn requests_of_one_transaction_see_each_other() {
        let put = |precondition| {
            let change = Change::Put { value: Bytes::new(), ttl: Ttl::NONE };
            WriteRequest { key: "k".into(), change, precondition }
        };
        let delete = WriteRequest { key: "k".into(), change: Change::Delete, precondition: Precondition::None };
        let (mut state, mut outcome) = (HashMap::new(), Outcome::default());
        let requests = [
            put(Precondition::Absent),
            put(Precondition::Absent),
            put(Precondition::At(Revision::new(11))),
            delete.clone(),
            delete,
            put(Precondition::Absent),
        ];
        for request in &requests {
            plan(request, &mut state, Revision::new(10), &mut outcome);
        }
        let answers: Vec<_> =
            outcome.answers.iter().map(|answer| answer.as_ref().ok().map(|ok| ok.revision.get())).collect();
        assert_eq!(answers, [Some(11), None, Some(12), Some(13), Some(13), Some(14)]);
        assert_eq!(outcome.prev_ids, [0, 11, 12, 13]);
    }
}
