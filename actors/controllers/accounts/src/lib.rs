//! The controllers of who is who.

mod bootstrap_tokens;
mod default_account;
mod namespaces;
mod requests;
mod root_ca;
mod tokens;

use k3sd_client::controller::setup::Setup;
use k3sd_runtime::ChildSpec;

/// The loops, each a child of its own.
pub fn loops(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    let mut loops = vec![default_account::default_account(setup)];
    loops.extend(root_ca::root_ca(setup));
    loops.extend(bootstrap_tokens::bootstrap_tokens(setup));
    loops.extend(requests::requests(setup));
    loops.extend(tokens::tokens(setup));
    loops
}
