//! What an error of etcd's means for the call that got it: whether it was carried out, and whether to try again.

use std::error::Error;
use std::sync::Arc;

use thiserror::Error;
use tonic::{Code, Status};

use super::line::LineError;
use crate::error::{Op, Source, StoreError};

/// What became of a call.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nothing has happened, and somebody else may be able to do it, or the same member later.
    Elsewhere(Source),
    /// Nothing has happened, because who we are is not known there any more.
    Stranger(Source),
    /// Nothing has happened, and nothing will.
    Final(StoreError),
    /// Nothing has happened: the revision is compacted.
    Compacted,
    /// Nothing has happened: the revision has not come yet.
    Future,
    /// Nothing has happened: the lease has ended or is taken.
    Lease,
    /// It may have happened or not.
    Lost(Source),
}

/// No answer within the time that an answer takes at most.
#[derive(Clone, Copy, Debug, Error)]
#[error("no answer in time")]
pub(super) struct Late;

/// What etcd says when it has not begun: there is no leader, too much to do already, or the member doesn't vote.
const NOT_BEGUN: &[&str] =
    &["etcdserver: no leader", "etcdserver: too many requests", "etcdserver: rpc not supported for learner"];
/// How it refuses what is too large, in words of its own and in those of the layer below.
const TOO_LARGE: &[&str] = &["etcdserver: request is too large", "larger than max"];
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const COMPACTED: &str = "required revision has been compacted";
const FUTURE: &str = "required revision is a future revision";
const LEASES: &[&str] = &["etcdserver: requested lease not found", "etcdserver: lease already exists"];
const STRANGER: &[&str] = &["etcdserver: invalid auth token", "etcdserver: revision of auth store is old"];

impl Fault {
    pub(super) fn new(op: Op, status: Status) -> Self {
        let line = status.source().and_then(|source| source.downcast_ref::<LineError>());
        if let Some(LineError { sent, .. }) = line {
            return if *sent { Self::Lost(Arc::new(status)) } else { Self::Elsewhere(Arc::new(status)) };
        }
        let says = |texts: &[&str]| texts.iter().any(|text| status.message().contains(text));
        if says(NOT_BEGUN) {
            return Self::Elsewhere(Arc::new(status));
        }
        if says(STRANGER) {
            return Self::Stranger(Arc::new(status));
        }
        if says(TOO_LARGE) {
            return Self::Final(StoreError::invalid("the request is larger than etcd takes"));
        }
        if says(&[NO_SPACE]) {
            return Self::Final(StoreError::Full { op, source: Arc::new(status) });
        }
        if says(&[COMPACTED]) {
            return Self::Compacted;
        }
        if says(&[FUTURE]) {
            return Self::Future;
        }
        if says(LEASES) {
            return Self::Lease;
        }
        match status.code() {
            // These are etcd's decisions about the request itself.
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => Self::Final(StoreError::Database { op, source: Arc::new(status) }),
            _ => Self::Lost(Arc::new(status)),
        }
    }
}

/// A chain of errors in one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        // Some errors repeat what is below them.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: Code, message: &str) -> Fault {
        Fault::new(Op::Write, Status::new(code, message))
    }

    #[test]
    fn only_what_was_not_begun_is_tried_elsewhere() {
        for message in ["etcdserver: no leader", "etcdserver: rpc not supported for learner"] {
            assert!(matches!(fault(Code::Unavailable, message), Fault::Elsewhere(_)), "{message}");
        }
        assert!(matches!(fault(Code::ResourceExhausted, "etcdserver: too many requests"), Fault::Elsewhere(_)));
        for message in [
            "etcdserver: request timed out",
            "etcdserver: request timed out, possibly due to previous leader failure",
            "etcdserver: leader changed",
            "etcdserver: server stopped",
            "error reading from server: EOF",
        ] {
            assert!(matches!(fault(Code::Unavailable, message), Fault::Lost(_)), "{message}");
        }
        assert!(matches!(fault(Code::Unknown, "who knows"), Fault::Lost(_)));
    }

    #[test]
    fn what_etcd_decided_is_final() {
        let full = fault(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        assert!(matches!(full, Fault::Final(StoreError::Full { .. })));
        for (code, message) in [
            (Code::InvalidArgument, "etcdserver: request is too large"),
            (Code::ResourceExhausted, "grpc: received message larger than max (3000000 vs. 2097152)"),
        ] {
            assert!(matches!(fault(code, message), Fault::Final(StoreError::Invalid { .. })), "{message}");
        }
        let denied = fault(Code::PermissionDenied, "etcdserver: permission denied");
        assert!(matches!(denied, Fault::Final(StoreError::Database { .. })));
        let compacted = fault(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        assert!(matches!(compacted, Fault::Compacted));
    }
}
