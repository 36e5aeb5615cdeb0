//! Whether a quota has room for what an object takes.

use k3sd_objects::quantity::Quantity;
use k3sd_objects::quota::Meter;
use serde_json::Value;

use crate::attributes::{Attributes, Operation};
use crate::read::{Amounts, amounts, entries, field, has, text};

/// Checks what the quotas that an object counts against ask of it, and measures what it takes beyond what it took before:
/// nothing that is zero, and `None` if that is all.
///
/// # Errors
///
/// Fails with the words for a 403.
pub(super) fn measure(
    a: &Attributes<'_>,
    meter: &Meter,
    object: &Value,
    quotas: &[&Value],
) -> Result<Option<Amounts>, String> {
    for quota in quotas {
        let name = text(field(quota, "metadata"), "name");
        let limited = || hard(quota).filter(|resource| meter.measures(resource));
        if let Some(fault) = meter.fault(limited(), object) {
            return Err(format!("failed quota: {name}: {fault}"));
        }
        let used = field(field(quota, "status"), "used");
        if limited().any(|resource| !has(used, resource)) {
            let mut limited: Vec<&str> = limited().collect();
            limited.sort_unstable();
            return Err(format!("status unknown for quota: {name}, resources: {}", limited.join(",")));
        }
    }
    let mut amounts = meter.usage(object);
    let negative: Vec<&str> =
        amounts.iter().filter(|(_, amount)| amount.signum() < 0).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")));
    }
    if a.operation == Operation::Update {
        let Some(old) = a.old else {
            return Err("unable to get previous usage since prior version of object was not found".to_owned());
        };
        // An update that makes the object takes all of it.
        if !text(field(old, "metadata"), "resourceVersion").is_empty() {
            let before = meter.usage(old);
            for (name, amount) in &mut amounts {
                *amount -= before.get(name).copied().unwrap_or_default();
            }
        }
    }
    amounts.retain(|_, amount| amount.signum() > 0);
    Ok((!amounts.is_empty()).then_some(amounts))
}

fn hard(quota: &Value) -> impl Iterator<Item = &str> {
    entries(field(quota, "status"), "hard").map(|(resource, _)| resource)
}

/// What of a demand a quota counts.
pub(super) fn counted(quota: &Value, demand: &Amounts) -> Amounts {
    let hard = field(field(quota, "status"), "hard");
    demand.iter().filter(|(name, _)| has(hard, name)).map(|(name, amount)| (name.clone(), *amount)).collect()
}

/// What is used once `taken` is. Nothing that isn't taken changes.
///
/// # Errors
///
/// Fails with the words for a 403 if that is more than the quota has.
pub(super) fn used_after(quota: &Value, taken: &Amounts) -> Result<Amounts, String> {
    let status = field(quota, "status");
    let (hard, used) = (amounts(status, "hard"), amounts(status, "used"));
    let after = |name: &String, amount: &Quantity| used.get(name).copied().unwrap_or_default() + *amount;
    let exceeded: Vec<&String> = taken
        .iter()
        .filter(|(name, amount)| hard.get(*name).is_some_and(|hard| after(name, amount) > *hard))
        .map(|(name, _)| name)
        .collect();
    if exceeded.is_empty() {
        let mut all = used.clone();
        all.extend(taken.iter().map(|(name, amount)| (name.clone(), after(name, amount))));
        return Ok(all);
    }
    let shown = |amounts: &Amounts| -> String {
        let pairs = exceeded.iter().filter_map(|name| Some(format!("{name}={}", amounts.get(*name)?)));
        pairs.collect::<Vec<_>>().join(",")
    };
    let name = text(field(quota, "metadata"), "name");
    let (taken, used, hard) = (shown(taken), shown(&used), shown(&hard));
    Err(format!("exceeded quota: {name}, requested: {taken}, used: {used}, limited: {hard}"))
}

/// What is used once `taken` is given back; never less than nothing.
pub(super) fn used_before(quota: &Value, taken: &Amounts) -> Amounts {
    let mut used = amounts(field(quota, "status"), "used");
    for (name, amount) in taken {
        if let Some(slot) = used.get_mut(name) {
            *slot = (*slot - *amount).max(Quantity::ZERO);
        }
    }
    used
}
