//! The environment of a container.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, EnvVarSource, Pod, Secret};

use super::expand::expand;
use super::fields::{Here, field, resource};
use crate::spec::{find, namespace};

/// The objects that a container's environment may need.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// Config maps of the pod's namespace that were found.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets of the pod's namespace that were found.
    pub secrets: BTreeMap<String, Secret>,
}

/// The names of the objects that the container's environment needs: config maps, and secrets.
#[must_use]
pub fn needs(container: &Container) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for from in container.env_from.as_deref().unwrap_or_default() {
        maps.extend(from.config_map_ref.as_ref().map(|one| one.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|one| one.name.clone()));
    }
    for from in container.env.as_deref().unwrap_or_default().iter().filter_map(|one| one.value_from.as_ref()) {
        maps.extend(from.config_map_key_ref.as_ref().map(|one| one.name.clone()));
        secrets.extend(from.secret_key_ref.as_ref().map(|one| one.name.clone()));
    }
    (maps, secrets)
}

/// The environment, and events to write about it: reason and message.
#[derive(Debug, Default)]
pub struct Environment {
    /// Name and value, in the order in which the container gets them.
    pub variables: Vec<(String, String)>,
    /// What was skipped; for warnings with the reason `InvalidEnvironmentVariableNames`.
    pub skipped: Vec<String>,
}

impl Environment {
    /// The variables by name.
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<String, String> {
        self.variables.iter().cloned().collect()
    }
}

/// Makes the environment. Values refer to those before them, and to Services.
///
/// # Errors
/// What is missing, in the words that a container's waiting state shows.
pub fn environment(
    pod: &Pod,
    container: &Container,
    mut services: BTreeMap<String, String>,
    references: &References,
    here: &Here,
) -> Result<Environment, String> {
    let mut made = Environment::default();
    let mut known = BTreeMap::new();
    for source in container.env_from.as_deref().unwrap_or_default() {
        from_source(pod, source, references, &mut known, &mut made.skipped)?;
    }
    let mut imported: BTreeSet<String> = known.keys().cloned().collect();
    for variable in container.env.as_deref().unwrap_or_default() {
        let value = match (variable.value.as_deref().unwrap_or_default(), &variable.value_from) {
            ("", Some(from)) => match value_from(pod, container, from, references, here)? {
                Some(value) => value,
                None => continue,
            },
            (text, _) => expand(text, &[&known, &services]),
        };
        services.remove(&variable.name);
        imported.remove(&variable.name);
        made.variables.retain(|(name, _)| *name != variable.name);
        made.variables.push((variable.name.clone(), value.clone()));
        known.insert(variable.name.clone(), value);
    }
    // Services are weakest, then what whole objects brought.
    for name in &imported {
        services.remove(name);
        made.variables.push((name.clone(), known.get(name).cloned().unwrap_or_default()));
    }
    made.variables.extend(services);
    Ok(made)
}

/// Whether the API lets a variable be called so: anything that can be printed, but no `=`.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte) && byte != b'=')
}

fn from_source(
    pod: &Pod,
    source: &EnvFromSource,
    references: &References,
    known: &mut BTreeMap<String, String>,
    skipped: &mut Vec<String>,
) -> Result<(), String> {
    let (what, name, optional, data): (_, _, _, Option<Vec<(String, String)>>) =
        if let Some(map) = &source.config_map_ref {
            let data = references.config_maps.get(&map.name);
            let data = data.map(|found| found.data.clone().unwrap_or_default().into_iter().collect());
            ("configMap", &map.name, map.optional, data)
        } else if let Some(secret) = &source.secret_ref {
            let data = references.secrets.get(&secret.name).map(|found| {
                let data = found.data.clone().unwrap_or_default().into_iter();
                data.map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect()
            });
            ("secret", &secret.name, secret.optional, data)
        } else {
            return Ok(());
        };
    let Some(data) = data else {
        return if optional.unwrap_or_default() { Ok(()) } else { Err(missing(&what.to_lowercase(), name)) };
    };
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let mut invalid = Vec::new();
    for (key, value) in data {
        let key = format!("{prefix}{key}");
        if is_name(&key) {
            known.insert(key, value);
        } else {
            invalid.push(key);
        }
    }
    if !invalid.is_empty() {
        skipped.push(format!(
            "Keys [{}] from the EnvFrom {what} {}/{name} were skipped since they are considered invalid environment variable names.",
            invalid.join(", "),
            namespace(pod),
        ));
    }
    Ok(())
}

fn missing(what: &str, name: &str) -> String {
    format!("{what} {name:?} not found")
}

/// The value, or nothing if it is optional and missing.
fn value_from(
    pod: &Pod,
    container: &Container,
    from: &EnvVarSource,
    references: &References,
    here: &Here,
) -> Result<Option<String>, String> {
    if let Some(of) = &from.field_ref {
        return field(pod, &of.field_path, here).map(Some);
    }
    if let Some(of) = &from.resource_field_ref {
        let other = of.container_name.as_deref().filter(|name| !name.is_empty() && *name != container.name);
        let Some(other) = other else { return resource(of, container, here).map(Some) };
        let (_, other) = find(pod, other).ok_or_else(|| format!("container {other} not found"))?;
        return resource(of, &other, here).map(Some);
    }
    if let Some(of) = &from.config_map_key_ref {
        let optional = of.optional.unwrap_or_default();
        let found = references.config_maps.get(&of.name);
        if found.is_none() && !optional {
            return Err(missing("configmap", &of.name));
        }
        let value = found.and_then(|map| map.data.as_ref()?.get(&of.key).cloned());
        if value.is_none() && !optional {
            return Err(format!("couldn't find key {} in ConfigMap {}/{}", of.key, namespace(pod), of.name));
        }
        return Ok(value);
    }
    if let Some(of) = &from.secret_key_ref {
        let optional = of.optional.unwrap_or_default();
        let found = references.secrets.get(&of.name);
        if found.is_none() && !optional {
            return Err(missing("secret", &of.name));
        }
        let value = found.and_then(|secret| secret.data.as_ref()?.get(&of.key));
        if value.is_none() && !optional {
            return Err(format!("couldn't find key {} in Secret {}/{}", of.key, namespace(pod), of.name));
        }
        return Ok(value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()));
    }
    Ok(Some(String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn references() -> References {
        let map = serde_json::json!({"data": {"good": "1", "also-good": "2", "k": "map"}});
        let secret = serde_json::json!({"data": {"k": "c2VjcmV0"}});
        References {
            config_maps: BTreeMap::from([("m".to_owned(), serde_json::from_value(map).unwrap())]),
            secrets: BTreeMap::from([("s".to_owned(), serde_json::from_value(secret).unwrap())]),
        }
    }

    fn run(container: &str) -> Result<String, String> {
        let pod = pod(&format!("{{metadata: {{name: p, namespace: 'n'}}, spec: {{containers: [{container}]}}}}"));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let services = BTreeMap::from([("SVC".to_owned(), "svc".to_owned()), ("A".to_owned(), "service".to_owned())]);
        let made = environment(&pod, container, services, &references(), &Here::default())?;
        let pairs: Vec<_> = made.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok(pairs.join(" "))
    }

    #[test]
    fn environments_are_made() {
        for (container, expected) in [
            ("{name: c}", Ok("A=service SVC=svc")),
            (
                "{name: c, env: [{name: A, value: a}, {name: B, value: $(A)-$(SVC)-$(C)}, {name: C, value: c}]}",
                Ok("A=a B=a-svc-$(C) C=c SVC=svc"),
            ),
            ("{name: c, env: [{name: X, value: '1'}, {name: X, value: $(X)2}]}", Ok("X=12 A=service SVC=svc")),
            (
                "{name: c, envFrom: [{configMapRef: {name: m}, prefix: P_}]}",
                Ok("P_also-good=2 P_good=1 P_k=map A=service SVC=svc"),
            ),
            (
                "{name: c, envFrom: [{configMapRef: {name: m}}, {secretRef: {name: s}}], env: [{name: E, value: $(k)}, {name: good, value: own}]}",
                Ok("E=secret good=own also-good=2 k=secret A=service SVC=svc"),
            ),
            ("{name: c, envFrom: [{configMapRef: {name: none, optional: true}}]}", Ok("A=service SVC=svc")),
            ("{name: c, envFrom: [{configMapRef: {name: none}}]}", Err("configmap \"none\" not found")),
            ("{name: c, envFrom: [{secretRef: {name: none}}]}", Err("secret \"none\" not found")),
            (
                "{name: c, env: [{name: V, valueFrom: {secretKeyRef: {name: s, key: k}}}]}",
                Ok("V=secret A=service SVC=svc"),
            ),
            (
                "{name: c, env: [{name: V, valueFrom: {secretKeyRef: {name: s, key: x}}}]}",
                Err("couldn't find key x in Secret n/s"),
            ),
            (
                "{name: c, env: [{name: V, valueFrom: {secretKeyRef: {name: s, key: x, optional: true}}}]}",
                Ok("A=service SVC=svc"),
            ),
            (
                "{name: c, env: [{name: V, valueFrom: {configMapKeyRef: {name: m, key: x}}}]}",
                Err("couldn't find key x in ConfigMap n/m"),
            ),
            (
                "{name: c, env: [{name: V, valueFrom: {configMapKeyRef: {name: nope, key: x}}}]}",
                Err("configmap \"nope\" not found"),
            ),
            (
                "{name: c, env: [{name: V, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}",
                Ok("V=p A=service SVC=svc"),
            ),
        ] {
            assert_eq!(run(container), expected.map(str::to_owned).map_err(str::to_owned), "{container}");
        }
    }

    #[test]
    fn names_that_are_none_are_skipped_and_told() {
        let pod = pod(
            "{metadata: {name: p, namespace: 'n'}, spec: {containers: [{name: c, envFrom: [{prefix: 'a=', configMapRef: {name: m}}]}]}}",
        );
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let made = environment(&pod, container, BTreeMap::new(), &references(), &Here::default()).unwrap();
        assert!(made.variables.is_empty());
        assert_eq!(
            made.skipped,
            [
                "Keys [a=also-good, a=good, a=k] from the EnvFrom configMap n/m were skipped since they are considered invalid environment variable names."
            ]
        );
    }

    #[test]
    fn what_is_needed_is_known_before() {
        let pod = pod("{spec: {containers: [{name: c, envFrom: [{configMapRef: {name: m}}, {secretRef: {name: s}}],
            env: [{name: A, valueFrom: {configMapKeyRef: {name: 'n', key: k}}}, {name: B, valueFrom: {secretKeyRef: {name: t, key: k}}}]}]}}");
        let (maps, secrets) = needs(&pod.spec.as_ref().unwrap().containers[0]);
        assert_eq!(maps, ["m", "n"].map(str::to_owned).into());
        assert_eq!(secrets, ["s", "t"].map(str::to_owned).into());
    }
}
