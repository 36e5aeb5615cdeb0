//! The quality of service of a pod, which follows from what it asks for and what it may use.

use std::collections::BTreeMap;

use k3sd_objects::quantity::Quantity;
use serde_json::Value;

use crate::meta;

/// What counts; other resources say nothing about how a pod shares a node.
const COUNTED: &[&str] = &["cpu", "memory"];

type Amounts = BTreeMap<&'static str, Quantity>;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(pod: &Value) -> &'static str {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut all_limited = true;
    let mut count = |holder: &Value| {
        add(&mut requests, meta::at(holder, &["resources", "requests"]));
        let limited = add(&mut limits, meta::at(holder, &["resources", "limits"]));
        all_limited &= limited == COUNTED.len();
    };
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let whole = ["requests", "limits"].iter().any(|name| meta::at(spec, &["resources", name]).is_some());
    if whole {
        count(spec);
    } else {
        let lists = ["containers", "initContainers"].into_iter();
        lists.filter_map(|name| spec.get(name)?.as_array()).flatten().for_each(&mut count);
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if all_limited && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds what counts; answers how many there were.
fn add(sum: &mut Amounts, amounts: Option<&Value>) -> usize {
    let Some(amounts) = amounts else { return 0 };
    let mut found = 0;
    for name in COUNTED {
        let amount = amounts.get(name).and_then(|amount| Quantity::from_json(amount).ok());
        let Some(amount) = amount.filter(|amount| amount.signum() > 0) else { continue };
        found += 1;
        match sum.get_mut(name) {
            Some(total) => *total += amount,
            None => {
                sum.insert(name, amount);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let full = json!({ "cpu": "1", "memory": "1Gi" });
        let container =
            |requests: &Value, limits: &Value| json!({ "resources": { "requests": requests, "limits": limits } });
        let none = json!({});
        for (containers, class) in [
            (vec![container(&none, &none)], "BestEffort"),
            (vec![container(&json!({ "x.io/gpu": "1" }), &none)], "BestEffort"),
            (vec![container(&full, &full)], "Guaranteed"),
            (vec![container(&json!({ "cpu": "1000m", "memory": "1024Mi" }), &full)], "Guaranteed"),
            (vec![container(&full, &full), container(&none, &none)], "Burstable"),
            (vec![container(&json!({ "cpu": "1" }), &none)], "Burstable"),
            (vec![container(&json!({ "cpu": "1" }), &json!({ "cpu": "1" }))], "Burstable"),
        ] {
            let pod = json!({ "spec": { "containers": containers } });
            assert_eq!(qos_class(&pod), class, "{pod}");
        }
        let whole = json!({ "spec": {
            "resources": { "requests": full, "limits": full },
            "containers": [{ "resources": { "requests": { "cpu": "1m" } } }],
        } });
        assert_eq!(qos_class(&whole), "Guaranteed");
    }
}
