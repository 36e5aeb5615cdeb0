//! What the tests of this crate have in common.

use k8s_openapi::api::core::v1::Pod;

use crate::runtime::{Found, Runtime, Sandbox, State};
use crate::spec;
use crate::translate::labels::hash;

/// A pod from YAML.
pub(crate) fn pod(yaml: &str) -> Pod {
    let decoded = k3sd_objects::decode::yaml(yaml.as_bytes(), None).expect("YAML of a test");
    serde_json::from_value(decoded.value).expect("a pod of a test")
}

/// What the runtime has: `s` for a good sandbox, `x` for a dead one, then containers as `name=state`: `r`unning,
/// `c`reated, `u`nknown, or the code they ended with.
pub(crate) fn runtime(pod: &Pod, words: &str) -> Runtime {
    let mut made = Runtime::default();
    for (order, word) in words.split_whitespace().enumerate() {
        let second = i64::try_from(order).unwrap();
        let created_at = jiff::Timestamp::from_second(1_000_000 + second).unwrap();
        if let Some((name, state)) = word.split_once('=') {
            let (state, exit_code) = match state {
                "r" => (State::Running, 0),
                "c" => (State::Created, 0),
                "u" => (State::Unknown, 0),
                code => (State::Exited, code.parse().unwrap()),
            };
            let hash = spec::find(pod, name).map(|(_, container)| hash(&container)).unwrap_or_default();
            made.containers.insert(
                0,
                Found {
                    id: format!("id-{name}-{order}"),
                    name: name.into(),
                    attempt: 0,
                    sandbox: "sandbox".into(),
                    state,
                    created_at,
                    started_at: (state != State::Created).then_some(created_at),
                    finished_at: (state == State::Exited).then_some(created_at),
                    exit_code,
                    reason: match (state, exit_code) {
                        (State::Exited, 0) => "Completed".into(),
                        (State::Exited, _) => "Error".into(),
                        _ => String::new(),
                    },
                    message: String::new(),
                    hash,
                    image: "image".into(),
                    image_id: "sha256:1".into(),
                    log: String::new(),
                    grace: None,
                    pre_stop: None,
                    limits: None,
                    user: None,
                },
            );
        } else {
            made.sandboxes.push(Sandbox {
                id: "sandbox".into(),
                attempt: 0,
                ready: word == "s",
                created_at,
                addresses: vec!["10.42.0.2".into()],
                host_network: false,
            });
        }
    }
    made
}
