//! Puts endpoints into slices with few writes: an update costs every node less than a new slice does.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::desired::{Wanted, identity, is_same};
use crate::members::Trigger;

/// Endpoints of a slice, at most; upstream's default.
pub(crate) const ENDPOINTS_MAX: usize = 100;

/// What becomes of the slices of one set of ports.
#[derive(Debug, Default)]
pub(super) struct Packed {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
    pub(super) trigger: Trigger,
}

enum State {
    Same(Arc<EndpointSlice>),
    Changed(Box<EndpointSlice>),
    Gone(Arc<EndpointSlice>),
}

/// Brings the slices there are to what is wanted, as upstream does:
///
/// 1. Endpoints stay where they are; those that aren't wanted go, and a slice that is empty then goes.
/// 2. The slices that change anyway take new endpoints, the fullest first.
/// 3. What is left goes into the one slice that it fills best, else into new ones.
///
/// `blank` is a slice without endpoints, with the labels that all of them should have.
pub(super) fn pack(existing: &[Arc<EndpointSlice>], wanted: Vec<Wanted>, blank: &EndpointSlice) -> Packed {
    let mut trigger = Trigger::default();
    let (mut states, left) = keep(existing, &wanted, blank, &mut trigger);
    left.iter().for_each(|wanted| trigger.add(wanted.since));
    let mut left = left.into_iter().map(|wanted| wanted.endpoint.clone()).collect::<Vec<_>>().into_iter();

    let mut changed: Vec<&mut EndpointSlice> = states.iter_mut().filter_map(as_changed).collect();
    changed.sort_by_key(|slice| std::cmp::Reverse(slice.endpoints.len()));
    for slice in changed {
        let room = ENDPOINTS_MAX.saturating_sub(slice.endpoints.len());
        slice.endpoints.extend(left.by_ref().take(room));
    }

    let mut packed = Packed { trigger, ..Packed::default() };
    while left.len() > 0 {
        let best = if left.len() < ENDPOINTS_MAX { best_fit(&states, left.len()) } else { None };
        match best {
            Some(at) => {
                if let State::Same(slice) = &states[at] {
                    let mut slice = (**slice).clone();
                    slice.endpoints.extend(left.by_ref());
                    states[at] = State::Changed(Box::new(slice));
                }
            }
            None => {
                let endpoints = left.by_ref().take(ENDPOINTS_MAX).collect();
                packed.create.push(EndpointSlice { endpoints, ..blank.clone() });
            }
        }
    }
    for state in states {
        match state {
            State::Same(_) => {}
            State::Changed(slice) => packed.update.push(*slice),
            State::Gone(slice) => packed.delete.push(slice),
        }
    }
    packed
}

fn as_changed(state: &mut State) -> Option<&mut EndpointSlice> {
    match state {
        State::Changed(slice) => Some(slice),
        _ => None,
    }
}

/// The first step: what becomes of each slice, and the endpoints that are in none.
fn keep<'a>(
    existing: &[Arc<EndpointSlice>],
    wanted: &'a [Wanted],
    blank: &EndpointSlice,
    trigger: &mut Trigger,
) -> (Vec<State>, Vec<&'a Wanted>) {
    let mut missing: HashMap<_, usize> =
        wanted.iter().enumerate().map(|(at, wanted)| (identity(&wanted.endpoint), at)).collect();
    let mut states = Vec::with_capacity(existing.len());
    for slice in existing {
        let mut kept = Vec::with_capacity(slice.endpoints.len());
        let mut is_changed = false;
        for endpoint in &slice.endpoints {
            let Some(at) = missing.remove(&identity(endpoint)) else { continue };
            let wanted = &wanted[at];
            if !is_same(&wanted.endpoint, endpoint) {
                is_changed = true;
                let serving =
                    |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| endpoint.conditions.as_ref()?.serving;
                if serving(&wanted.endpoint) != serving(endpoint) {
                    trigger.add(wanted.since);
                }
            }
            kept.push(at);
        }
        is_changed |= kept.len() != slice.endpoints.len();
        let is_relabelled = slice.metadata.labels != blank.metadata.labels;
        states.push(if is_changed && kept.is_empty() {
            State::Gone(slice.clone())
        } else if is_changed {
            let endpoints = kept.into_iter().map(|at| wanted[at].endpoint.clone()).collect();
            State::Changed(Box::new(relabelled(slice, endpoints, blank)))
        } else if is_relabelled {
            State::Changed(Box::new(relabelled(slice, slice.endpoints.clone(), blank)))
        } else {
            State::Same(slice.clone())
        });
    }
    let mut left: Vec<usize> = missing.into_values().collect();
    left.sort_unstable();
    (states, left.into_iter().map(|at| &wanted[at]).collect())
}

fn relabelled(
    slice: &EndpointSlice,
    endpoints: Vec<k8s_openapi::api::discovery::v1::Endpoint>,
    blank: &EndpointSlice,
) -> EndpointSlice {
    let mut metadata = slice.metadata.clone();
    metadata.labels.clone_from(&blank.metadata.labels);
    EndpointSlice { metadata, endpoints, address_type: slice.address_type.clone(), ports: slice.ports.clone() }
}

/// Of the slices that are as they were, the one in which so many more leave the least room.
fn best_fit(states: &[State], count: usize) -> Option<usize> {
    let room = |(at, state): (usize, &State)| {
        let State::Same(slice) = state else { return None };
        let room = ENDPOINTS_MAX.checked_sub(slice.endpoints.len() + count)?;
        (room < ENDPOINTS_MAX).then_some((room, at))
    };
    states.iter().enumerate().filter_map(room).min().map(|(_, at)| at)
}
