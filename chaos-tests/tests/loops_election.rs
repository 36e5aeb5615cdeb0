//! Several electors over one API: never do two lead at once, and whoever leads is followed by somebody.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::election::{ElectionArgs, elector};
use k3sd_runtime::{ChildSpec, Clock, Moment, Signal, Spec, Strategy, subtree, task};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

/// Who acted, and when each began.
#[derive(Clone, Default)]
struct Acts {
    at_once: Arc<AtomicUsize>,
    begun: Arc<Mutex<Vec<(&'static str, Moment)>>>,
}

struct Acting(Acts);

impl Drop for Acting {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Acts {
    fn begin(&self, who: &'static str, now: Moment) -> Acting {
        self.begun.lock().expect("nobody panicked").push((who, now));
        assert_eq!(self.at_once.fetch_add(1, Ordering::SeqCst), 0, "{who} acts beside somebody else");
        Acting(self.clone())
    }

    fn acting(&self) -> usize {
        self.at_once.load(Ordering::SeqCst)
    }

    fn names(&self) -> Vec<&'static str> {
        self.begun.lock().expect("nobody panicked").iter().map(|(who, _)| *who).collect()
    }

    fn last(&self) -> (&'static str, Moment) {
        *self.begun.lock().expect("nobody panicked").last().expect("somebody acted")
    }
}

/// One process: an elector, and behind it somebody who acts while this one leads.
fn contender(plane: &Plane, who: &'static str, acts: &Acts) -> ChildSpec {
    let connect = plane.identities().user("elector", &["system:masters"]);
    let (elector, leading) = elector("elector", ElectionArgs::new(connect, "kube-system", "lock", who));
    let acts = acts.clone();
    let actor = task("actor", move |handle| {
        let (acts, mut leading) = (acts.clone(), leading.clone());
        async move {
            leading.lead().await;
            let _acting = acts.begin(who, handle.system().clock().now());
            std::future::pending().await
        }
    });
    subtree(who, Spec::new(Strategy::RestForOne).budget(1000, SECOND).child(elector).child(actor))
}

async fn start(seed: u64, names: &[&'static str]) -> (Cluster, Acts) {
    let (plane, acts) = (Plane::new(Clock::simulated(seed)), Acts::default());
    let contenders = names.iter().map(|who| contender(&plane, who, &acts)).collect();
    let cluster = plane.start(contenders).await;
    cluster.wait_until("somebody leads", async || acts.acting() == 1).await;
    (cluster, acts)
}

fn leases(cluster: &Cluster) -> Api<Lease> {
    Api::namespaced(cluster.admin(), "kube-system")
}

fn other_of(who: &str) -> &'static str {
    if who == "a" { "b" } else { "a" }
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_says_so_in_the_lease() {
    let (cluster, acts) = start(1, &["a", "b"]).await;
    let (who, _) = acts.last();
    cluster.pass(600 * SECOND).await;
    assert_eq!(acts.names(), [who], "nothing happened, so nothing changed");
    let spec = leases(&cluster).get("lock").await.expect("it is there").spec.expect("written");
    assert_eq!(spec.holder_identity.as_deref(), Some(who));
    assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (Some(15), Some(0)));
    let renewed = spec.renew_time.expect("written").0.as_second();
    let now = cluster.clock().wall().as_secs() as i64;
    assert!((now - 4..=now).contains(&renewed), "{renewed} at {now}");
    assert!(spec.acquire_time.expect("written").0.as_second() < now - 500);
}

#[tokio::test(start_paused = true)]
async fn a_killed_elector_goes_on_leading() {
    let (cluster, acts) = start(2, &["a", "b"]).await;
    let (who, _) = acts.last();
    cluster.kill(&format!("loops/{who}/elector"));
    cluster.wait_until("it leads again", async || acts.names().len() == 2 && acts.acting() == 1).await;
    assert_eq!(acts.names(), [who, who], "the lease is still in its name");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_stopped_hands_over_at_once() {
    let (cluster, acts) = start(3, &["a", "b"]).await;
    let (who, _) = acts.last();
    let loops = cluster.system().supervisor("loops").expect("a supervisor");
    let stopped_at = cluster.clock().now();
    loops.stop(60 * SECOND, who).await.expect("it stops");
    cluster.wait_until("the other leads", async || acts.acting() == 1).await;
    let (next, at) = acts.last();
    assert_eq!(next, other_of(who));
    // Within one jittered period, not within the lease's duration.
    assert!(at.since(stopped_at) < 5 * SECOND, "{:?}", at.since(stopped_at));
    let spec = leases(&cluster).get("lock").await.expect("it is there").spec.expect("written");
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some(next), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_the_api_stops_before_anybody_else_can_begin() {
    let (cluster, acts) = start(4, &["a", "b"]).await;
    cluster.pass(5 * SECOND).await;
    cluster.storage.set_open(false);
    // Renewed at most one period ago; then a period of rest, and the deadline.
    cluster.pass(9 * SECOND).await;
    assert_eq!(acts.acting(), 1, "it still tries");
    cluster.pass(4 * SECOND).await;
    assert_eq!(acts.acting(), 0, "the lease isn't over for others yet, and it has stopped");
    cluster.pass(60 * SECOND).await;
    assert_eq!(acts.acting(), 0, "nobody can lead");
    cluster.storage.set_open(true);
    cluster.wait_until("somebody leads again", async || acts.acting() == 1).await;
    assert_eq!(acts.names().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_short_absence_of_the_api_changes_nothing() {
    let (cluster, acts) = start(5, &["a", "b"]).await;
    for _ in 0..10 {
        cluster.pass(7 * SECOND).await;
        cluster.storage.set_open(false);
        cluster.pass(6 * SECOND).await;
        cluster.storage.set_open(true);
    }
    cluster.pass(20 * SECOND).await;
    assert_eq!((acts.names().len(), acts.acting()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_taken_away_is_contested_again() {
    let (cluster, acts) = start(6, &["a", "b"]).await;
    let params = PatchParams::default();
    let taken = json!({"spec": {"holderIdentity": "somebody", "leaseTransitions": 7}});
    leases(&cluster).patch("lock", &params, &Patch::Merge(&taken)).await.expect("an administrator may");
    let taken_at = cluster.clock().now();
    cluster.wait_until("the leader stops", async || acts.acting() == 0).await;
    assert!(cluster.clock().now().since(taken_at) < 3 * SECOND, "at its next renewal");
    cluster.wait_until("one of the two leads", async || acts.acting() == 1).await;
    assert!(acts.last().1.since(taken_at) >= 15 * SECOND, "somebody never renewed");
    let spec = leases(&cluster).get("lock").await.expect("it is there").spec.expect("written");
    assert_eq!(spec.lease_transitions, Some(8));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_made_anew() {
    // Whoever deletes a lease says that nobody holds it: with two, another may begin before the first has noticed.
    let (cluster, acts) = start(7, &["a"]).await;
    leases(&cluster).delete("lock", &DeleteParams::default()).await.expect("it is there");
    cluster.pass(30 * SECOND).await;
    assert_eq!(acts.acting(), 1);
    assert!(leases(&cluster).get("lock").await.is_ok(), "made anew");
}

#[tokio::test(start_paused = true)]
async fn two_never_act_at_once_whatever_dies() {
    for seed in 10..20 {
        let (cluster, acts) = start(seed, &["a", "b", "c"]).await;
        let mut rng = k3sd_runtime::Clock::simulated(seed).rng("kills");
        for _ in 0..40 {
            let who = ["a", "b", "c"][rng.below(3) as usize];
            match rng.below(4) {
                0 => _ = cluster.system().signal(&format!("loops/{who}/elector"), Signal::Kill),
                1 => _ = cluster.system().signal(&format!("loops/{who}/elector"), Signal::Panic),
                2 => _ = cluster.system().signal(&format!("loops/{who}"), Signal::Kill),
                _ => {
                    cluster.storage.set_open(false);
                    cluster.pass(Duration::from_millis(rng.below(20_000))).await;
                    cluster.storage.set_open(true);
                }
            }
            cluster.pass(Duration::from_millis(rng.below(8_000))).await;
        }
        // `Acts::begin` asserts that nobody acts beside another; here somebody does in the end.
        cluster.wait_until("somebody leads", async || acts.acting() == 1).await;
        cluster.stop().await;
    }
}
