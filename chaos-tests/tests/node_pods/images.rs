//! Images from a registry: with passwords, tokens, and programs that know them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k3sd_containerd::image::busybox;
use k3sd_kubelet_pods::credentials::CredentialProviders;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::registry::Registry;
use crate::world::{Options, World, world_with};

/// A program that knows the password of `prog`, and counts how often it is asked.
fn credentials(place: &Path) -> CredentialProviders {
    let programs = place.join("programs");
    fs::create_dir_all(&programs).expect("a directory");
    let program = programs.join("knows");
    let answer = json!({
        "kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "cacheKeyType": "Registry", "cacheDuration": "1h",
        "auth": {"127.0.0.1:*": {"username": "nobody", "password": "x"}, "REGISTRY": {"username": "prog", "password": "word"}},
    });
    let text = format!(
        "#!/bin/sh\ncat >> {0}/asked; echo >> {0}/asked\nsed \"s/REGISTRY/$(cat {0}/port)/\" <<'END'\n{answer}\nEND\n",
        programs.display()
    );
    fs::write(&program, text).expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
        "providers": [{
            "name": "knows", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "matchImages": ["127.0.0.1:PORT"], "defaultCacheDuration": "1m",
        }],
    });
    // The registry isn't there yet: it is started on the port that is chosen here.
    let port = fs::read_to_string(place.join("port")).unwrap_or_default();
    fs::write(place.join("programs.json"), config.to_string().replace("PORT", port.trim())).expect("a file");
    CredentialProviders::load(&place.join("programs.json"), &programs).expect("it makes sense")
}

impl World {
    async fn secret(&self, name: &str, kind: &str, key: &str, value: &Value) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind,
            "data": {key: STANDARD.encode(value.to_string())},
        });
        let api: Api<Secret> = Api::namespaced(self.cluster.admin(), "default");
        api.create(&PostParams::default(), &serde_json::from_value(secret).expect("one")).await.expect("it is taken");
    }

    async fn pulls(&self, name: &str, image: &str, secret: Option<&str>) {
        let container = json!({"name": "c", "image": image, "imagePullPolicy": "Always", "command": ["sleep", "1000"]});
        let mut spec = json!({"containers": [container]});
        if let Some(secret) = secret {
            spec["imagePullSecrets"] = json!([{"name": secret}]);
        }
        self.create(name, spec).await;
    }
}

fn waits(pod: &Value, reason: &str) -> bool {
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == json!(reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_pulled_with_whatever_it_takes() {
    let place = tempfile::tempdir().expect("a directory");
    let Ok(image) = busybox(Path::new("/bin/busybox")) else {
        println!("ignored: there is no busybox");
        return;
    };
    let users = [("json", "one"), ("cfg", "two"), ("token", "three"), ("node", "four"), ("prog", "word")];
    let registry = Registry::start(place.path(), &image, &users);
    PORT.store(registry.port, std::sync::atomic::Ordering::Relaxed);
    let with_port = |place: &Path| {
        let port = PORT.load(std::sync::atomic::Ordering::Relaxed);
        fs::create_dir_all(place.join("programs")).expect("a directory");
        fs::write(place.join("port"), port.to_string()).expect("a file");
        fs::write(place.join("programs/port"), format!("127.0.0.1:{port}")).expect("a file");
        credentials(place)
    };
    let Some(world) = world_with("images", Options { credentials: Some(with_port), ..Options::default() }).await else {
        return;
    };
    world.containerd.know_registry(registry.port);
    let host = format!("127.0.0.1:{}", registry.port);
    let auth = |user: &str, word: &str| json!({"auth": STANDARD.encode(format!("{user}:{word}"))});
    let config = json!({"auths": {format!("http://{host}"): auth("json", "one")}});
    world.secret("new", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", &config).await;
    let config = json!({host.clone(): {"username": "cfg", "password": "two"}});
    world.secret("old", "kubernetes.io/dockercfg", ".dockercfg", &config).await;
    let config = json!({"auths": {host.clone(): auth("token", "three")}});
    world.secret("token", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", &config).await;
    let config = json!({"auths": {format!("{host}/basic/node"): auth("node", "four")}});
    fs::create_dir_all(world.containerd.path("kubelet")).expect("a directory");
    fs::write(world.containerd.path("kubelet/config.json"), config.to_string()).expect("a file");

    for (name, path, secret) in [
        ("open", "open/busybox:1", None),
        ("json", "basic/json/busybox:1", Some("new")),
        ("cfg", "basic/cfg/busybox:1", Some("old")),
        ("token", "bearer/token/busybox:1", Some("token")),
        ("node", "basic/node/busybox:1", None),
        ("prog", "basic/prog/busybox:1", None),
        ("again", "basic/prog/other:1", None),
    ] {
        world.pulls(name, &registry.image(path), secret).await;
    }
    for name in ["open", "json", "cfg", "token", "node", "prog", "again"] {
        world.running(name).await;
    }
    let pulled = format!("Pulled: Successfully pulled image \"{}\" in ", registry.image("open/busybox:1"));
    world.told("open", &pulled).await;
    let asked = fs::read_to_string(world.containerd.path("programs/asked")).expect("it was asked");
    let asked: Vec<Value> = asked.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(asked.len(), 1, "what it said about the registry is kept: {asked:?}");
    assert_eq!(asked[0]["kind"], json!("CredentialProviderRequest"));
    assert!(asked[0]["image"].as_str().is_some_and(|image| image.starts_with(&host) && !image.ends_with(":1")));

    world.pulls("wrong", &registry.image("basic/json/busybox:1"), Some("old")).await;
    world.pulls("absent", &registry.image("open/busybox:absent"), Some("none")).await;
    world.pulls("odd", "Not-A-Name", None).await;
    for name in ["wrong", "absent"] {
        world.until(name, "can't be pulled", |pod| waits(pod, "ErrImagePull") || waits(pod, "ImagePullBackOff")).await;
        let pod = world.until(name, "waits", |pod| waits(pod, "ImagePullBackOff")).await;
        let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().expect("text");
        assert!(
            message.starts_with("Back-off pulling image \"127.0.0.1:") && message.contains("ErrImagePull: "),
            "{message}"
        );
        world.told(name, "Failed: Error: ErrImagePull").await;
        world.told(name, "BackOff: Back-off pulling image ").await;
    }
    world.until("odd", "has no name", |pod| waits(pod, "InvalidImageName")).await;
    world.told("absent", "FailedToRetrieveImagePullSecret: Unable to retrieve some image pull secrets (none); ").await;
    for name in ["open", "prog", "wrong", "absent", "odd"] {
        world.delete(name).await;
    }
}

/// The registry's port, for whoever configures the program.
static PORT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
