//! Services with addresses and ports.

use std::collections::BTreeSet;
use std::time::Duration;

use k3sd_client::storage::Storage as _;
use serde_json::{Value, json};

use super::world::{Ask, World, service};
use crate::special::read::{items, text};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn at(name: &str) -> String {
    format!("{SERVICES}/{name}")
}

fn address_at(address: &Value) -> String {
    format!("{ADDRESSES}/{}", address.as_str().expect("address"))
}

/// The names of addresses that are taken.
async fn taken(world: &World) -> BTreeSet<String> {
    let all = world.get(ADDRESSES).await.expect("list");
    items(&all, "").iter().map(|one| text(one, "/metadata/name").to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_address_comes_and_goes_with_its_service() {
    let world = World::new(&["10.43.0.0/24"]).await;
    let made = world.post(SERVICES, service("a", json!({}))).await.expect("made");
    let spec = &made["spec"];
    assert_eq!((&spec["clusterIPs"][0], &spec["ipFamilies"]), (&spec["clusterIP"], &json!(["IPv4"])));
    assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
    let address = world.get(&address_at(&spec["clusterIP"])).await.expect("taken");
    assert_eq!(text(&address, "/spec/parentRef/name"), "a");
    assert_eq!(address["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv4");

    let again = service("b", json!({"clusterIP": spec["clusterIP"]}));
    let refused = world.post(SERVICES, again).await.expect_err("taken");
    let ip = text(spec, "/clusterIP");
    let why = format!(
        "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"{ip}\"]: failed to allocate IP {ip}: provided IP is \
         already allocated"
    );
    assert_eq!((refused.code, refused.message), (422, why));

    // Older than any request: the repair could take it for a leak, were it too quick.
    world.pass(Duration::from_secs(90)).await;
    world.delete(&at("a")).await.expect("deleted");
    assert_eq!(world.get(&address_at(&spec["clusterIP"])).await.expect_err("free").code, 404);
    let told = world.get("/api/v1/namespaces/default/events").await.expect("events");
    assert_eq!(told, json!([]), "nothing had to be mended");
    world.post(SERVICES, service("b", json!({"clusterIP": spec["clusterIP"]}))).await.expect("free again");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_or_tried_takes_nothing() {
    let world = World::new(&["10.43.0.0/24"]).await;
    let before = taken(&world).await;
    for (name, spec, why) in [
        ("a", json!({"clusterIP": "10.99.0.1"}), "the provided network does not match the current range"),
        (
            "a",
            json!({"clusterIP": "10.43.0.255"}),
            "the provided IP (10.43.0.255) is not in the valid range. The range of valid IPs is 10.43.0.0/24",
        ),
        (
            "a",
            json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 29_999}]}),
            "provided port is not in the valid range. The range of valid ports is 30000-30031",
        ),
        // Validated only behind the allocation.
        ("a", json!({"ports": [{"port": 1, "protocol": "ODD"}]}), "Unsupported value"),
        ("NO", json!({}), "metadata.name"),
    ] {
        let refused = world.post(SERVICES, service(name, spec.clone())).await.expect_err("refused");
        assert!(refused.code == 422 && refused.message.contains(why), "{spec}: {}", refused.message);
    }
    let tried = world
        .ask(Ask {
            method: "POST",
            path: SERVICES,
            query: "dryRun=All",
            body: service("a", json!({"type": "NodePort"})),
        })
        .await
        .expect("tried");
    assert!(tried["spec"]["ports"][0]["nodePort"].is_number() && tried["spec"]["clusterIP"].is_string());
    assert_eq!(taken(&world).await, before);
    // All 32 ports are there still.
    for number in 0..32 {
        world.post(SERVICES, service(&format!("n{number}"), json!({"type": "NodePort"}))).await.expect("a port");
    }
    let full = world.post(SERVICES, service("full", json!({"type": "NodePort"}))).await.expect_err("full");
    assert_eq!(full.message, "Internal error occurred: failed to allocate a nodePort: range is full");
    assert_eq!(taken(&world).await.len(), before.len() + 32, "the address of the last one is free");
}

#[tokio::test(start_paused = true)]
async fn a_range_that_is_full() {
    let world = World::new(&["10.43.0.0/29"]).await;
    // Six addresses, one for `kubernetes`.
    for number in 0..5 {
        world.post(SERVICES, service(&format!("s{number}"), json!({}))).await.expect("an address");
    }
    let full = world.post(SERVICES, service("full", json!({}))).await.expect_err("full");
    assert_eq!(
        (full.code, full.message.as_str()),
        (500, "Internal error occurred: failed to allocate a serviceIP: range is full")
    );
    let more = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.44.0.0/28"]}});
    world.post("/apis/networking.k8s.io/v1/servicecidrs", more).await.expect("a range");
    let made = world.post(SERVICES, service("full", json!({}))).await.expect("an address");
    assert!(text(&made, "/spec/clusterIP").starts_with("10.44.0."));

    // A range in use waits for its addresses.
    let range = "/apis/networking.k8s.io/v1/servicecidrs/more";
    world
        .until(range, |found| found.as_ref().is_ok_and(|cidr| cidr["status"]["conditions"][0]["status"] == "True"))
        .await;
    world.delete(range).await.expect("asked to go");
    world
        .until(range, |found| {
            found.as_ref().is_ok_and(|cidr| cidr["status"]["conditions"][0]["reason"] == "Terminating")
        })
        .await;
    world.delete(&at("full")).await.expect("deleted");
    world.until(range, |found| found.as_ref().is_err_and(|status| status.code == 404)).await;
}

#[tokio::test(start_paused = true)]
async fn changes_of_type_and_family() {
    let world = World::new(&["10.43.0.0/24", "fd00:43::/112"]).await;
    let before = taken(&world).await;
    world.post(SERVICES, service("a", json!({"ipFamilyPolicy": "PreferDualStack"}))).await.expect("made");
    let dual = world.get(&at("a")).await.expect("there");
    assert_eq!(dual["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(taken(&world).await.len(), before.len() + 2);
    let single = world.patch(&at("a"), json!({"spec": {"ipFamilyPolicy": "SingleStack"}})).await.expect("single");
    assert_eq!(single["spec"]["clusterIPs"], json!([dual["spec"]["clusterIP"]]));
    assert_eq!(taken(&world).await.len(), before.len() + 1);

    let open = world.patch(&at("a"), json!({"spec": {"type": "NodePort"}})).await.expect("open");
    let port = open["spec"]["ports"][0]["nodePort"].clone();
    assert!(port.is_number());
    let mut put = open.clone();
    put["spec"]["ports"][0].as_object_mut().expect("port").remove("nodePort");
    put["spec"].as_object_mut().expect("spec").remove("clusterIP");
    put["spec"].as_object_mut().expect("spec").remove("clusterIPs");
    let path = at("a");
    let kept = world.ask(Ask { method: "PUT", path: &path, query: "", body: put }).await.expect("put");
    assert_eq!(kept["spec"], open["spec"], "a client need not repeat what it was given");

    let named = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let named = world.patch(&path, named).await.expect("external");
    assert!(named["spec"].get("clusterIP").is_none() && named["spec"].get("ipFamilies").is_none(), "{named}");
    assert_eq!(taken(&world).await, before);
    let taken_port = service("b", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": port}]}));
    world.post(SERVICES, taken_port).await.expect("the port is free");

    let back = json!({"spec": {"type": "ClusterIP", "externalName": null}});
    let back = world.patch(&path, back).await.expect("back");
    assert!(text(&back, "/spec/clusterIP").starts_with("10.43.0."));
    let moved = world.patch(&path, json!({"spec": {"clusterIP": "10.43.0.200"}})).await.expect_err("immutable");
    assert!(moved.message.contains("may not change once set"), "{}", moved.message);
}

#[tokio::test(start_paused = true)]
async fn what_was_left_behind_is_mended() {
    let world = World::new(&["10.43.0.0/24"]).await;
    let made = world.post(SERVICES, service("a", json!({"type": "NodePort"}))).await.expect("made");
    let address = address_at(&made["spec"]["clusterIP"]);
    // Somebody deletes it.
    world.delete(&address).await.expect("deleted");
    world.until(&address, Result::is_ok).await;
    let told = world.get("/api/v1/namespaces/default/events").await.expect("events");
    assert!(items(&told, "").iter().any(|event| event["reason"] == "ClusterIPNotAllocated"), "{told}");
    // One whose Service never came.
    let leaked = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": "10.43.0.77", "labels": {"ipaddress.kubernetes.io/ip-family": "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "nobody"}}});
    world.post(ADDRESSES, leaked).await.expect("leaked");
    world.pass(Duration::from_secs(30)).await;
    let path = format!("{ADDRESSES}/10.43.0.77");
    world.get(&path).await.expect("there for a while");
    world.until(&path, |found| found.as_ref().is_err_and(|status| status.code == 404)).await;
    // The repair dies, and comes back.
    world.kill("bootstrap/repair");
    world.delete(&address).await.expect("deleted");
    world.until(&address, Result::is_ok).await;
}

#[tokio::test(start_paused = true)]
async fn allocations_outlive_the_server() {
    let world = World::new(&["10.43.0.0/24"]).await;
    let made = world.post(SERVICES, service("a", json!({"type": "NodePort"}))).await.expect("made");
    let (memory, clock) = (world.memory.clone(), world.clock.clone());
    world.stop().await;
    let world = World::over(memory, clock, &["10.43.0.0/24"], "10.1.1.1").await;
    let spec = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": made["spec"]["ports"][0]["nodePort"]}]});
    let refused = world.post(SERVICES, service("b", spec)).await.expect_err("taken");
    assert!(refused.message.contains("provided port is already allocated"), "{}", refused.message);
    let refused = world.post(SERVICES, service("b", json!({"clusterIP": made["spec"]["clusterIP"]}))).await;
    assert!(refused.expect_err("taken").message.contains("provided IP is already allocated"));
}

#[tokio::test(start_paused = true)]
async fn many_at_once_get_different_ones() {
    let world = World::new(&["10.43.0.0/26"]).await;
    let spec = json!({"type": "NodePort"});
    let work = (0..24).map(|number| world.post(SERVICES, service(&format!("s{number}"), spec.clone())));
    let made = futures_util::future::join_all(work.collect::<Vec<_>>()).await;
    let made: Vec<Value> = made.into_iter().map(|made| made.expect("made")).collect();
    let different = |pointer: &str| {
        made.iter().map(|one| one.pointer(pointer).expect(pointer).to_string()).collect::<BTreeSet<_>>()
    };
    assert_eq!(different("/spec/clusterIP").len(), 24);
    assert_eq!(different("/spec/ports/0/nodePort").len(), 24);
}

/// What Services have, and what is noted as taken: addresses and ports.
async fn books(world: &World) -> [BTreeSet<String>; 4] {
    let all = world.get("/api/v1/services").await.expect("list");
    let held = items(&all, "").iter().flat_map(crate::special::services::held_addresses).collect();
    let ports = items(&all, "").iter().flat_map(crate::special::services::ports::node_ports);
    let key = crate::special::services::ports::KEY;
    let stored = world.memory.get(key.into(), None).await.expect("read").found.expect("noted");
    let noted = crate::special::services::ports::Ports::from_bytes(&stored.value, world.api.special().node_ports);
    let noted = noted.expect("ours").taken().iter().map(ToString::to_string).collect();
    [held, taken(world).await, ports.map(|port| port.to_string()).collect(), noted]
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_dropped_anywhere_leave_nothing_for_long() {
    let world = World::new(&["10.43.0.0/24"]).await;
    for polls in 0..40 {
        let name = format!("s{polls}");
        let made = async {
            world.post(SERVICES, service(&name, json!({"type": "NodePort"}))).await?;
            if polls % 2 == 0 {
                world.delete(&at(&name)).await?;
            }
            Ok::<_, k3sd_objects::status::Status>(())
        };
        let mut made = std::pin::pin!(made);
        for _ in 0..polls {
            let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(made.as_mut().poll(cx))).await;
            if poll.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // A port without an owner is freed when it was seen for the fourth time.
    world.pass(Duration::from_secs(900)).await;
    let [held, taken, ports, noted] = books(&world).await;
    assert!(!ports.is_empty(), "some got through");
    assert_eq!((held, ports), (taken, noted));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_costs_an_address_for_a_minute() {
    let world = World::new(&["10.43.0.0/24"]).await;
    world.pass(Duration::from_secs(5)).await;
    let before = taken(&world).await;
    world.memory.lose_answers(1);
    let lost = world.post(SERVICES, service("a", json!({}))).await.expect_err("unknown");
    assert!(lost.code >= 500, "{lost:?}");
    world.pass(Duration::from_secs(90)).await;
    assert_eq!(taken(&world).await, before);
    world.post(SERVICES, service("a", json!({}))).await.expect("made");
}

#[tokio::test(start_paused = true)]
async fn two_servers_give_out_different_ones() {
    let ranges = ["10.43.0.0/26"];
    let first = World::new(&ranges).await;
    let second = World::over(first.memory.clone(), first.clock.clone(), &ranges, "10.1.1.2").await;
    let work = (0..28).map(|number| {
        let world = if number % 2 == 0 { &first } else { &second };
        world.post(SERVICES, service(&format!("s{number}"), json!({"type": "NodePort"})))
    });
    let made = futures_util::future::join_all(work.collect::<Vec<_>>()).await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let [held, taken, ports, noted] = books(&second).await;
    assert_eq!((held.len(), ports.len()), (29, 28));
    assert_eq!((held, ports), (taken, noted));
}
