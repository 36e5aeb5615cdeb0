//! What is answered to whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::Response;
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::Timestamp;
use serde_json::{Map, json};

use super::meters::Meters;
use crate::model::HealthPort;

/// How rules are written here; upstream's other ways are not built.
const PROXY_MODE: &str = "nftables";
/// The type of pages in Prometheus' text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

pub(crate) type Body = Full<Bytes>;

/// Answers to paths.
pub(crate) type Pages = Arc<dyn Fn(&str) -> Response<Body> + Send + Sync>;

fn page(status: u16, kind: &str, body: impl Into<Bytes>) -> Response<Body> {
    let built = Response::builder().status(status).header("Content-Type", kind);
    let built = built.header("X-Content-Type-Options", "nosniff").body(Full::new(body.into()));
    built.unwrap_or_else(|_| unreachable!("status and headers are our own"))
}

fn not_found() -> Response<Body> {
    page(404, PLAIN, "404 page not found\n")
}

/// A time as Go writes it into JSON; one that never was is the first of all.
fn go_time(wall: Option<Duration>) -> String {
    let time = wall.and_then(|wall| {
        let seconds = i64::try_from(wall.as_secs()).ok()?;
        Timestamp::new(seconds, i32::try_from(wall.subsec_nanos()).ok()?).ok()
    });
    time.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

fn counted(counts: &[AtomicU64; 2], is_good: bool) -> u16 {
    counts[usize::from(!is_good)].fetch_add(1, Relaxed);
    if is_good { 200 } else { 503 }
}

/// `/healthz`, which also says whether the node should get clients, and `/livez`, which doesn't.
pub(crate) fn health_page(meters: &Meters, path: &str) -> Response<Body> {
    let clock = meters.clock();
    let (last, now) = (meters.last_synced().map(|last| clock.wall_at(last)), clock.wall());
    let is_healthy = meters.is_healthy();
    let status = |last: Duration| {
        let of_family = json!({"lastUpdated": go_time(Some(last)), "healthy": is_healthy});
        meters.families().iter().map(|family| ((*family).to_owned(), of_family.clone())).collect::<Map<_, _>>()
    };
    let say = |is_good: bool, eligible: Option<bool>| {
        // Whoever is well was so just now, as upstream counts.
        let last_updated = go_time(if is_good { Some(now) } else { last });
        let mut body = json!({"lastUpdated": last_updated, "currentTime": go_time(Some(now)), "healthy": is_healthy});
        if let Some(eligible) = eligible {
            body["nodeEligible"] = eligible.into();
        }
        if let Some(last) = last {
            body["status"] = status(last).into();
        }
        body.to_string()
    };
    match path {
        "/healthz" => {
            let is_eligible = meters.is_eligible();
            let is_good = is_healthy && is_eligible;
            page(counted(&meters.healthz, is_good), JSON, say(is_good, Some(is_eligible)))
        }
        "/livez" => page(counted(&meters.livez, is_healthy), JSON, say(is_healthy, None)),
        _ => not_found(),
    }
}

/// `/metrics`, `/proxyMode`, and plain health.
pub(crate) fn metrics_page(meters: &Meters, path: &str) -> Response<Body> {
    match path {
        "/metrics" => page(200, EXPOSITION, meters.write()),
        "/proxyMode" => page(200, PLAIN, PROXY_MODE),
        "/healthz" => page(200, PLAIN, "ok"),
        _ => not_found(),
    }
}

/// Whether a service has endpoints on this node, for whoever balances loads over nodes.
pub(super) fn service_page(health: &HealthPort, is_healthy: bool) -> Response<Body> {
    let body = json!({
        "service": {"namespace": health.namespace, "name": health.name},
        "localEndpoints": health.endpoints,
        "serviceProxyHealthy": is_healthy,
    });
    let status = if health.endpoints > 0 && is_healthy { 200 } else { 503 };
    let mut page = page(status, JSON, body.to_string());
    if let Ok(weight) = health.endpoints.to_string().parse() {
        page.headers_mut().insert("X-Load-Balancing-Endpoint-Weight", weight);
    }
    page
}

#[cfg(test)]
mod tests {
    use k3sd_runtime::Clock;

    use super::*;

    #[test]
    fn times_look_as_go_writes_them() {
        let time = Duration::new(1_893_456_000, 500_000_000);
        assert_eq!(go_time(Some(time)), "2030-01-01T00:00:00.5Z");
        assert_eq!(go_time(None), "0001-01-01T00:00:00Z");
    }

    #[tokio::test(start_paused = true)]
    async fn statuses_say_what_load_balancers_go_by() {
        let meters = Meters::new(Clock::simulated(1), Duration::from_secs(60));
        let text = |page: Response<Body>| async move {
            let bytes = http_body_util::BodyExt::collect(page.into_body()).await.unwrap().to_bytes();
            serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()
        };
        let before = health_page(&meters, "/healthz");
        assert_eq!(before.status(), 503);
        let before = text(before).await;
        assert_eq!(before["lastUpdated"], "0001-01-01T00:00:00Z");
        assert!(before["status"].is_null() && before["healthy"] == false, "{before}");
        assert_eq!(health_page(&meters, "/livez").status(), 503);
        let round = crate::sync::Round { is_going: true, ..Default::default() };
        tokio::time::advance(Duration::from_secs(1)).await;
        meters.synced(meters.clock().now(), Duration::ZERO, &round);
        assert_eq!(health_page(&meters, "/healthz").status(), 503, "the node goes away");
        tokio::time::advance(Duration::from_secs(1)).await;
        let live = health_page(&meters, "/livez");
        assert_eq!(live.status(), 200);
        let live = text(live).await;
        let synced = json!({"IPv4": {"healthy": true, "lastUpdated": "2030-01-01T00:00:01Z"}});
        assert_eq!((&live["status"], &live["lastUpdated"]), (&synced, &"2030-01-01T00:00:02Z".into()));
        assert!(live.get("nodeEligible").is_none() && live["healthy"] == true, "{live}");
        assert_eq!(health_page(&meters, "/metrics").status(), 404);
        assert_eq!(metrics_page(&meters, "/proxyMode").status(), 200);
        let mut health = HealthPort { port: 30001, namespace: "a".to_owned(), name: "web".to_owned(), endpoints: 2 };
        let answer = service_page(&health, true);
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["X-Load-Balancing-Endpoint-Weight"]),
            (200, &"2".parse().unwrap())
        );
        assert_eq!(service_page(&health, false).status(), 503);
        health.endpoints = 0;
        assert_eq!(service_page(&health, true).status(), 503);
    }
}
