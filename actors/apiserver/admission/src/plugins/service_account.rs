//! `ServiceAccount`: each pod runs as an account of its namespace, and finds that account's token where clients look.

use std::collections::BTreeSet;
use std::time::Duration;

use k3sd_objects::names;
use k3sd_objects::object::Object;
use k3sd_objects::status::{Qualified, Status};
use k3sd_runtime::Clock;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::attributes::{Attributes, Operation};
use crate::lookup::{Lookup, SERVICE_ACCOUNTS, find};
use crate::plugins::is_mirror;
use crate::plugins::references::{Of, names as references};
use crate::read::{at, field, has, is_empty, items, items_mut, list_mut, parsed, set, text};

/// The account of pods that name none.
const DEFAULT: &str = "default";

/// What the names of token volumes begin with.
const VOLUME_PREFIX: &str = "kube-api-access-";

/// Where clients look for their token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Restricts an account's pods to the Secrets that it lists.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

/// Life of a token; an hour, and a little for the kubelet to see that it is the default.
const TOKEN_SECONDS: i64 = 3607;

/// How often the default account is looked for, which a controller makes right after the namespace.
const DEFAULT_ATTEMPTS: u32 = 10;

/// Pause between those attempts; up to as much again is added.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

/// What of an account matters to its pods.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Account {
    metadata: AccountMeta,
    automount_service_account_token: Option<bool>,
    secrets: Option<Vec<Reference>>,
    image_pull_secrets: Option<Vec<Reference>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AccountMeta {
    name: String,
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reference {
    name: String,
}

impl Account {
    fn enforces(&self) -> bool {
        let value = self.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ENFORCE));
        value.is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
    }

    fn names(list: Option<&Vec<Reference>>) -> BTreeSet<&str> {
        list.into_iter().flatten().map(|reference| reference.name.as_str()).collect()
    }
}

/// What is done for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Concern {
    New,
    Ephemeral,
}

fn concern(a: &Attributes<'_>) -> Option<Concern> {
    match (a.operation, a.subresource) {
        (Operation::Create, "") if a.is("", "pods") => Some(Concern::New),
        (Operation::Update, "ephemeralcontainers") if a.is("", "pods") => Some(Concern::Ephemeral),
        _ => None,
    }
}

/// Gives a new pod its account, the account's token and the Secrets to pull images with.
pub(crate) async fn mutate(
    a: &Attributes<'_>,
    pod: &mut Value,
    lookup: &dyn Lookup,
    clock: &Clock,
) -> Result<(), Status> {
    if concern(a) != Some(Concern::New) {
        return Ok(());
    }
    // The kubelet deletes the image of its own pod if it is another one than it has.
    if is_mirror(pod) {
        return check_mirror(a, pod);
    }
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else { return Ok(()) };
    let mut name = text(spec, "serviceAccountName").to_owned();
    if name.is_empty() {
        name = text(spec, "serviceAccount").to_owned();
    }
    if name.is_empty() {
        DEFAULT.clone_into(&mut name);
    }
    // Old clients read the second name.
    set(spec, "serviceAccountName", name.as_str());
    set(spec, "serviceAccount", name.as_str());
    let account = parsed::<Account>(&look_up(a, pod, &name, lookup, Some(clock)).await?);
    let Some(spec) = pod.get_mut("spec") else { return Ok(()) };
    let own = field(spec, "automountServiceAccountToken").as_bool();
    if own.or(account.automount_service_account_token).unwrap_or(true) {
        mount(spec, || clock.rng("admission/volume-names").next_u64());
    }
    if is_empty(field(spec, "imagePullSecrets")) {
        let secrets = account.image_pull_secrets.iter().flatten();
        let secrets: Vec<Value> = secrets.map(|secret| json!({"name": secret.name})).collect();
        if !secrets.is_empty() {
            set(spec, "imagePullSecrets", secrets);
        }
    }
    Ok(())
}

/// Checks what others may have changed since.
pub(crate) async fn validate(a: &Attributes<'_>, pod: &Value, lookup: &dyn Lookup) -> Result<(), Status> {
    let Some(concern) = concern(a) else { return Ok(()) };
    if concern == Concern::New && is_mirror(pod) {
        return check_mirror(a, pod);
    }
    let name = text(field(pod, "spec"), "serviceAccountName");
    if name.is_empty() {
        let own = text(field(pod, "metadata"), "name");
        return Err(a.forbidden(pod, format!("no service account specified for pod {}/{own}", a.namespace)));
    }
    let account = parsed::<Account>(&look_up(a, pod, name, lookup, None).await?);
    if !account.enforces() {
        return Ok(());
    }
    let fault = match concern {
        Concern::New => fault(&account, field(pod, "spec")),
        Concern::Ephemeral => {
            fault_of_containers(&account, field(pod, "spec"), "ephemeralContainers", "ephemeral container")
        }
    };
    fault.map_or(Ok(()), |why| Err(a.forbidden(pod, why)))
}

/// The account, for which a pod of a new namespace waits a moment if there is a clock to wait by.
async fn look_up(
    a: &Attributes<'_>,
    pod: &Value,
    name: &str,
    lookup: &dyn Lookup,
    clock: Option<&Clock>,
) -> Result<Object, Status> {
    let refused = |why: &dyn std::fmt::Display| {
        a.forbidden(pod, format!("error looking up service account {}/{name}: {why}", a.namespace))
    };
    let waiting = clock.filter(|_| name == DEFAULT);
    let mut left = if waiting.is_some() { DEFAULT_ATTEMPTS } else { 1 };
    loop {
        if let Some(account) =
            find(lookup, SERVICE_ACCOUNTS, a.namespace, name).await.map_err(|status| refused(&status.message))?
        {
            return Ok(account);
        }
        left -= 1;
        let Some(clock) = waiting.filter(|_| left > 0) else {
            let missing = Status::not_found(Qualified::new("", "serviceaccount"), name);
            return Err(refused(&missing.message));
        };
        let jitter = ATTEMPT_PAUSE.mul_f64(clock.rng("admission/service-accounts").fraction());
        clock.sleep_until(clock.now() + ATTEMPT_PAUSE + jitter).await;
    }
}

fn check_mirror(a: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    let spec = field(pod, "spec");
    let sources = items(spec, "volumes").iter().flat_map(|volume| items(field(volume, "projected"), "sources"));
    let why = if !text(spec, "serviceAccountName").is_empty() {
        "a mirror pod may not reference service accounts"
    } else if references(spec, Of::Secrets).next().is_some() {
        "a mirror pod may not reference secrets"
    } else if sources.into_iter().any(|source| has(source, "serviceAccountToken")) {
        "a mirror pod may not use ServiceAccountToken volume projections"
    } else {
        return Ok(());
    };
    Err(a.forbidden(pod, why))
}

/// Mounts a token in each container that has nothing in its place, and adds the volume if one does.
fn mount(spec: &mut Value, random: impl FnOnce() -> u64) {
    let known = items(spec, "volumes").iter().map(|volume| text(volume, "name"));
    let known = known.into_iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let missing = known.is_none();
    let name = known.unwrap_or_else(|| names::generate(VOLUME_PREFIX, random()));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in items_mut(spec, list) {
            if items(container, "volumeMounts").iter().any(|mount| text(mount, "mountPath") == MOUNT_PATH) {
                continue;
            }
            if let Some(mounts) = list_mut(container, "volumeMounts") {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
                needed = true;
            }
        }
    }
    if needed
        && missing
        && let Some(volumes) = list_mut(spec, "volumes")
    {
        volumes.push(volume(&name));
    }
}

/// A token, the authority that it is good for, and the namespace.
fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

/// The first Secret of a pod that its account doesn't list.
fn fault(account: &Account, spec: &Value) -> Option<String> {
    let allowed = Account::names(account.secrets.as_ref());
    let name = &account.metadata.name;
    for volume in items(spec, "volumes").iter().filter(|volume| has(volume, "secret")) {
        let secret = text(field(volume, "secret"), "secretName");
        if !allowed.contains(secret) {
            return Some(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {name} does not \
                 reference that secret"
            ));
        }
    }
    let found = fault_of_containers(account, spec, "initContainers", "init container")
        .or_else(|| fault_of_containers(account, spec, "containers", "container"));
    if found.is_some() {
        return found;
    }
    let pull = Account::names(account.image_pull_secrets.as_ref());
    let mut wanted = items(spec, "imagePullSecrets").iter().map(|secret| text(secret, "name")).enumerate();
    let (index, secret) = wanted.find(|(_, secret)| !pull.contains(secret))?;
    Some(format!(
        "imagePullSecrets[{index}].name=\"{secret}\" is not allowed because service account {name} does not reference \
         that imagePullSecret"
    ))
}

fn fault_of_containers(account: &Account, spec: &Value, list: &str, what: &str) -> Option<String> {
    let allowed = Account::names(account.secrets.as_ref());
    let own = &account.metadata.name;
    let refused = |reference: &Value| !reference.is_null() && !allowed.contains(text(reference, "name"));
    for container in items(spec, list) {
        let name = text(container, "name");
        for variable in items(container, "env") {
            let reference = at(variable, &["valueFrom", "secretKeyRef"]);
            if refused(reference) {
                let (variable, secret) = (text(variable, "name"), text(reference, "name"));
                return Some(format!(
                    "{what} {name} with envVar {variable} referencing secret.secretName=\"{secret}\" is not allowed because \
                     service account {own} does not reference that secret"
                ));
            }
        }
        for source in items(container, "envFrom") {
            let reference = field(source, "secretRef");
            if refused(reference) {
                let secret = text(reference, "name");
                return Some(format!(
                    "{what} {name} with envFrom referencing secret.secretName=\"{secret}\" is not allowed because service \
                     account {own} does not reference that secret"
                ));
            }
        }
    }
    None
}
