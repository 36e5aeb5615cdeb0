//! Mends addresses and ports of Services: what a request left behind that died on its way, what somebody deleted by hand,
//! what two servers did before they knew each other.

mod actor;
mod core;
mod events;

pub(super) use self::actor::{Repair, RepairArgs};

/// Done when every Service and every address was looked at once.
pub(super) const HOOK: &str = "start-service-ip-repair-controllers";
