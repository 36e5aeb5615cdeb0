//! The shapes of transactions, on the store of tests.

use bytes::Bytes;
use k3sd_datastore::Memory;

use super::*;
use crate::wire::etcdserverpb::{DeleteRangeRequest, PutRequest};

fn put(key: &'static str, value: &'static str) -> RequestOp {
    let put = PutRequest { key: Bytes::from(key), value: Bytes::from(value), ..PutRequest::default() };
    RequestOp { request: Some(Op::RequestPut(put)) }
}

fn get(key: &'static str) -> RequestOp {
    let range = RangeRequest { key: Bytes::from(key), ..RangeRequest::default() };
    RequestOp { request: Some(Op::RequestRange(range)) }
}

fn list(key: &'static str, end: &'static str) -> RequestOp {
    let range = RangeRequest { key: Bytes::from(key), range_end: Bytes::from(end), ..RangeRequest::default() };
    RequestOp { request: Some(Op::RequestRange(range)) }
}

fn delete(key: &'static str) -> RequestOp {
    let delete = DeleteRangeRequest { key: Bytes::from(key), prev_kv: true, ..DeleteRangeRequest::default() };
    RequestOp { request: Some(Op::RequestDeleteRange(delete)) }
}

fn compare(key: &'static str, target: CompareTarget, union: TargetUnion) -> Compare {
    Compare { target: target.into(), key: Bytes::from(key), target_union: Some(union), ..Compare::default() }
}

fn at(key: &'static str, revision: i64) -> Compare {
    compare(key, CompareTarget::Mod, TargetUnion::ModRevision(revision))
}

fn txn(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { compare, success, failure }
}

async fn run(backend: &AnyBackend, request: TxnRequest) -> TxnResponse {
    Plan::new(request).expect("it is supported").carry_out(backend).await.expect("it is carried out")
}

fn refused(request: TxnRequest) -> bool {
    Plan::new(request).is_err_and(|status| status.message() == unsupported_txn().message())
}

fn ranged(response: &TxnResponse, index: usize) -> Vec<(String, String)> {
    let Some(Answer::ResponseRange(range)) = &response.responses[index].response else {
        panic!("no range: {response:?}")
    };
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    range.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn revision(response: &TxnResponse) -> i64 {
    response.header.as_ref().expect("a header").revision
}

#[tokio::test]
async fn create_update_and_delete_as_api_servers_send_them() {
    let backend = AnyBackend::new(Memory::new());
    let create = || txn(vec![at("k", 0)], vec![put("k", "1")], vec![]);
    let created = run(&backend, create()).await;
    assert!(created.succeeded);
    assert!(!run(&backend, create()).await.succeeded, "it is there already");

    let first = revision(&created);
    let update = |seen, value| txn(vec![at("k", seen)], vec![put("k", value)], vec![get("k")]);
    let updated = run(&backend, update(first, "2")).await;
    assert!(updated.succeeded && revision(&updated) > first);
    let stale = run(&backend, update(first, "3")).await;
    assert!(!stale.succeeded);
    assert_eq!(ranged(&stale, 0), pairs(&[("k", "2")]), "the failure tells what is there");

    let stale = run(&backend, txn(vec![at("k", first)], vec![delete("k")], vec![get("k")])).await;
    assert!(!stale.succeeded);
    assert_eq!(ranged(&stale, 0), pairs(&[("k", "2")]));
    let gone = run(&backend, txn(vec![at("k", revision(&updated))], vec![delete("k")], vec![get("k")])).await;
    assert!(gone.succeeded);
    let unconditional = run(&backend, txn(vec![], vec![get("k"), delete("k")], vec![])).await;
    assert!(unconditional.succeeded && ranged(&unconditional, 0).is_empty(), "there was nothing");
    assert!(run(&backend, create()).await.succeeded);
    let unconditional = run(&backend, txn(vec![], vec![get("k"), delete("k")], vec![])).await;
    assert_eq!(ranged(&unconditional, 0), pairs(&[("k", "1")]), "read before it was deleted");
}

#[tokio::test]
async fn the_first_version_is_told_from_none_and_from_later_ones() {
    let backend = AnyBackend::new(Memory::new());
    let is = |version| {
        txn(vec![compare("k", CompareTarget::Version, TargetUnion::Version(version))], vec![], vec![get("k")])
    };
    let holds = async |version| run(&backend, is(version)).await.succeeded;
    assert_eq!((holds(0).await, holds(1).await), (true, false), "it is not there");
    run(&backend, txn(vec![], vec![put("k", "1")], vec![])).await;
    assert_eq!((holds(0).await, holds(1).await), (false, true), "it was created");
    run(&backend, txn(vec![], vec![put("k", "2")], vec![])).await;
    assert_eq!((holds(0).await, holds(1).await), (false, false), "it was written again");
    assert!(refused(is(2)), "later ones are all alike");
}

#[tokio::test]
async fn the_agreement_about_compaction() {
    let backend = AnyBackend::new(Memory::new());
    let agree = |version, value| {
        let check = compare("compact_rev_key", CompareTarget::Version, TargetUnion::Version(version));
        txn(vec![check], vec![put("compact_rev_key", value)], vec![get("compact_rev_key")])
    };
    assert!(run(&backend, agree(0, "5")).await.succeeded);
    let late = run(&backend, agree(0, "6")).await;
    assert!(!late.succeeded);
    let Some(Answer::ResponseRange(range)) = &late.responses[0].response else { panic!("no range: {late:?}") };
    assert_eq!((range.kvs[0].version, range.kvs[0].value.as_ref()), (1, &b"5"[..]));
    assert!(run(&backend, agree(1, "6")).await.succeeded);
    assert!(!run(&backend, agree(1, "7")).await.succeeded);
}

#[tokio::test]
async fn a_lock_reads_its_rivals_behind_its_own_write() {
    let backend = AnyBackend::new(Memory::new());
    let lock = |key: &'static str| {
        let free = compare(key, CompareTarget::Create, TargetUnion::CreateRevision(0));
        txn(vec![free], vec![put(key, "me"), list("l/", "l0")], vec![get(key), list("l/", "l0")])
    };
    let first = run(&backend, lock("l/a")).await;
    assert_eq!(ranged(&first, 1), pairs(&[("l/a", "me")]));
    let second = run(&backend, lock("l/b")).await;
    assert_eq!(ranged(&second, 1), pairs(&[("l/a", "me"), ("l/b", "me")]));
    let again = run(&backend, lock("l/a")).await;
    assert!(!again.succeeded);
    assert_eq!(ranged(&again, 0), pairs(&[("l/a", "me")]));
    assert_eq!(ranged(&again, 1), pairs(&[("l/a", "me"), ("l/b", "me")]));
}

#[tokio::test]
async fn reading_may_compare_anything_and_sees_one_moment() {
    let backend = AnyBackend::new(Memory::new());
    for (key, value) in [("a", "1"), ("b", "2")] {
        assert!(run(&backend, txn(vec![], vec![put(key, value)], vec![])).await.succeeded);
    }
    let value = |key, value: &'static str| compare(key, CompareTarget::Value, TargetUnion::Value(Bytes::from(value)));
    let both = run(&backend, txn(vec![value("a", "1"), value("b", "2")], vec![list("a", "c")], vec![])).await;
    assert!(both.succeeded);
    assert_eq!(ranged(&both, 0), pairs(&[("a", "1"), ("b", "2")]));
    let absent = run(&backend, txn(vec![value("c", "1")], vec![], vec![get("b")])).await;
    assert!(!absent.succeeded, "a value that is not there compares with nothing");
    assert_eq!(ranged(&absent, 0), pairs(&[("b", "2")]));
}

#[test]
fn what_would_not_be_exact_is_refused() {
    assert!(refused(txn(vec![], vec![put("a", "1"), put("b", "1")], vec![])), "two keys");
    assert!(refused(txn(vec![], vec![put("a", "1"), put("a", "2")], vec![])), "twice the same");
    assert!(refused(txn(vec![at("b", 0)], vec![put("a", "1")], vec![])), "depends on another key");
    assert!(refused(txn(vec![], vec![put("a", "1")], vec![delete("b")])), "another key in the other branch");
    let version = compare("a", CompareTarget::Version, TargetUnion::Version(3));
    assert!(refused(txn(vec![version], vec![put("a", "1")], vec![])), "versions are not counted");
    let nested = RequestOp { request: Some(Op::RequestTxn(TxnRequest::default())) };
    assert!(refused(txn(vec![], vec![nested], vec![])));
}
