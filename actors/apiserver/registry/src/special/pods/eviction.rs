//! `pods/eviction`: deletes a pod unless a disruption budget forbids it.

use k3sd_apiserver_store::ReadAt;
use k3sd_client::storage::Revision;
use k3sd_objects::object::Object;
use k3sd_objects::status::{Qualified, Reason, Status};
use serde_json::{Value, json};

use super::budget::{self, Verdict};
use super::conditions;
use crate::api::Api;
use crate::special::local;
use crate::special::read::{items, map_mut, text};

/// How often an eviction that somebody crossed is tried.
const ATTEMPTS: u32 = 20;

/// What is to be evicted, and how.
#[derive(Clone, Debug)]
pub(crate) struct Eviction {
    namespace: String,
    name: String,
    /// `DeleteOptions`.
    options: Value,
    dry_run: bool,
}

impl Eviction {
    /// Reads the body of a request about a pod.
    ///
    /// # Errors
    /// 400 for another name than that of the path, 500 (as upstream) for two ways to say whether it is a trial.
    pub(crate) fn read(eviction: &Value, namespace: &str, name: &str, dry_run: bool) -> Result<Self, Status> {
        if text(eviction, "/metadata/name") != name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut options = eviction["deleteOptions"].clone();
        if !options.is_object() {
            options = json!({});
        }
        let inner: Vec<&str> = items(&options, "/dryRun").iter().filter_map(Value::as_str).collect();
        if dry_run && !inner.is_empty() && inner != ["All"] {
            let shown = inner.join(" ");
            let why = format!("Non-matching dry-run options in request and content: [All] and [{shown}]");
            return Err(crate::special::unnamed(why));
        }
        let dry_run = dry_run || !inner.is_empty();
        if dry_run {
            options["dryRun"] = json!(["All"]);
        }
        options["apiVersion"] = "v1".into();
        options["kind"] = "DeleteOptions".into();
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), options, dry_run })
    }

    fn is_conditional(&self) -> bool {
        !text(&self.options, "/preconditions/resourceVersion").is_empty()
    }

    /// The options, holding for this state of the pod only.
    fn for_state(&self, pod: &Value) -> Value {
        let mut options = self.options.clone();
        map_mut(&mut options, "preconditions")
            .insert("resourceVersion".to_owned(), pod["metadata"]["resourceVersion"].clone());
        options
    }
}

/// Evicts a pod.
///
/// # Errors
/// 404, 429 if a budget forbids it, 409 if somebody else was faster and the request minds.
pub(crate) async fn evict(api: &Api, eviction: &Eviction) -> Result<(), Status> {
    let Some(pod) = pass_by_budgets(api, eviction).await? else { return Ok(()) };
    let (verdict, budget) = ask_budgets(api, eviction, &pod).await?;
    let unhealthy = verdict == Verdict::Unhealthy;
    let options = if unhealthy { eviction.for_state(&pod) } else { eviction.options.clone() };
    match mark_and_delete(api, eviction, options).await {
        // The pod may have become healthy; whoever asked may ask again.
        Err(status) if unhealthy && status.reason == Reason::Conflict && !eviction.is_conditional() => {
            Err(budget::behind(&budget))
        }
        other => other,
    }
}

/// Deletes a pod that budgets don't count. Answers the pod if they do.
async fn pass_by_budgets(api: &Api, eviction: &Eviction) -> Result<Option<Value>, Status> {
    for _ in 0..ATTEMPTS {
        let pod = find(api, eviction).await?.value();
        if !budget::is_beyond_budgets(&pod) {
            return Ok(Some(pod));
        }
        let raced = budget::may_become_ready(&pod) && !eviction.is_conditional();
        let options = if raced { eviction.for_state(&pod) } else { eviction.options.clone() };
        match mark_and_delete(api, eviction, options).await {
            Err(status) if status.reason == Reason::Conflict && !eviction.is_conditional() => {}
            other => return other.map(|()| None),
        }
    }
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    Err(Status::conflict(Qualified::new("", "pods"), &eviction.name, why))
}

async fn find(api: &Api, eviction: &Eviction) -> Result<Object, Status> {
    let store = local::store(api, local::PODS)?;
    let found = store.get(&eviction.namespace, &eviction.name, ReadAt::Latest).await?;
    found.ok_or_else(|| Status::not_found(Qualified::new("", "pods"), &eviction.name))
}

/// Asks the budgets over the pod, charges the one that minds, and says which one it was.
async fn ask_budgets(api: &Api, eviction: &Eviction, pod: &Value) -> Result<(Verdict, String), Status> {
    let store = local::store(api, local::BUDGETS)?;
    for _ in 0..ATTEMPTS {
        let query = k3sd_apiserver_store::ListQuery {
            namespace: Some(eviction.namespace.clone()),
            at: ReadAt::Latest,
            ..Default::default()
        };
        let found = store.list(&query).await?.objects;
        let budgets: Vec<Value> = found.iter().map(Object::value).filter(|one| budget::covers(one, pod)).collect();
        let verdict = budget::verdict(pod, &budgets)?;
        let name = budgets.first().map(|one| text(one, "/metadata/name").to_owned()).unwrap_or_default();
        if verdict != Verdict::Charge {
            return Ok((verdict, name));
        }
        let charged = budget::charge(&budgets[0], &eviction.name, local::now(api))?;
        if eviction.dry_run {
            return Ok((verdict, name));
        }
        match local::update_part(api, local::BUDGETS, &charged, "status").await {
            Ok(_) => return Ok((verdict, name)),
            Err(status) if status.reason == Reason::Conflict => {}
            Err(status) => return Err(status),
        }
    }
    Err(Status::timeout("couldn't update PodDisruptionBudget due to conflicts", 10))
}

/// Says in the pod's status why it goes, and deletes it.
async fn mark_and_delete(api: &Api, eviction: &Eviction, mut options: Value) -> Result<(), Status> {
    if !eviction.dry_run {
        let marked = mark(api, eviction, &options).await?;
        if !text(&options, "/preconditions/resourceVersion").is_empty() {
            options["preconditions"]["resourceVersion"] = marked.get().to_string().into();
        }
    }
    local::delete(api, local::PODS, &eviction.namespace, &eviction.name, Some(&options)).await
}

/// Sets the condition `DisruptionTarget`; answers the revision of the pod then.
async fn mark(api: &Api, eviction: &Eviction, options: &Value) -> Result<Revision, Status> {
    let store = local::store(api, local::PODS)?;
    for _ in 0..ATTEMPTS {
        let object = find(api, eviction).await?;
        let before = object.value();
        check_preconditions(&before, options)?;
        let mut pod = before.clone();
        let because = Some(("EvictionByEvictionAPI", "Eviction API: evicting"));
        conditions::set(&mut pod, "DisruptionTarget", "True", because, local::now(api));
        match store.update(&object, pod, None).await {
            Ok(written) => return Ok(Revision::new(written.resource_version())),
            Err(k3sd_apiserver_store::WriteError::Failed(status)) => return Err(status),
            Err(_) => {}
        }
    }
    Err(Status::timeout("couldn't update the status of the pod due to conflicts", 10))
}

fn check_preconditions(pod: &Value, options: &Value) -> Result<(), Status> {
    for (field, what, became) in
        [("uid", "UID", "deleted and then recreated"), ("resourceVersion", "ResourceVersion", "modified")]
    {
        let (wanted, found) =
            (text(&options["preconditions"], &format!("/{field}")), text(&pod["metadata"], &format!("/{field}")));
        if !wanted.is_empty() && wanted != found {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object \
                 might have been {became}"
            );
            return Err(Status::conflict(Qualified::new("", "Pod"), text(pod, "/metadata/name"), why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_may_be_said_in_two_places() {
        let read = |options: Value, dry_run| {
            let body = json!({"metadata": {"name": "p"}, "deleteOptions": options});
            Eviction::read(&body, "ns", "p", dry_run)
        };
        for (options, dry_run, expected) in [
            (Value::Null, false, false),
            (Value::Null, true, true),
            (json!({"dryRun": ["All"]}), false, true),
            (json!({"dryRun": ["All"]}), true, true),
            (json!({"gracePeriodSeconds": 5}), true, true),
        ] {
            let eviction = read(options, dry_run).expect("read");
            assert_eq!(eviction.dry_run, expected);
            assert_eq!(eviction.options["dryRun"] == json!(["All"]), expected);
        }
        let odd = read(json!({"dryRun": ["Some"]}), true).expect_err("odd");
        assert_eq!(odd.message, "Non-matching dry-run options in request and content: [All] and [Some]");
        let other = Eviction::read(&json!({"metadata": {"name": "q"}}), "ns", "p", false).expect_err("other name");
        assert_eq!(other.code, 400);
    }
}
