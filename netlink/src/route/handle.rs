//! The conversation about links, addresses and routes.

use super::codec;
use super::model::{Address, Desired, Link, Operation, RouteEntry, State};
use super::plan::plan;
use crate::error::NetlinkError;
use crate::namespace::Namespace;
use crate::socket::Socket;

/// Rounds of looking and mending before somebody else must be at work on the same things.
const ROUNDS_MAX: u32 = 5;

/// A socket for links, addresses and routes of one network namespace: that of the thread which opened it.
#[derive(Debug)]
pub struct Route {
    socket: Socket,
}

impl Route {
    /// Opens one in the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel has no netlink, or no file descriptor is left.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(None)? })
    }

    /// Opens one in another namespace.
    ///
    /// # Errors
    /// As [`Route::open`], or the namespace can't be entered.
    pub fn open_in(namespace: &Namespace) -> Result<Self, NetlinkError> {
        namespace.enter(Self::open)
    }

    /// All links.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        self.socket.dump("list links", &codec::get_link(None), codec::read_link)
    }

    /// The link of this name, if there is one.
    ///
    /// # Errors
    /// The kernel refused for another reason than that there is none.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        codec::check_name(name)?;
        match self.socket.request("look at a link", codec::get_link(Some(name))) {
            Ok(answers) => Ok(answers.iter().find_map(|answer| codec::read_link(answer.kind, &answer.payload))),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        let gone = || NetlinkError::Refused { what: format!("find link {name}"), errno: rustix::io::Errno::NODEV };
        self.link(name)?.map(|link| link.index).ok_or_else(gone)
    }

    /// All addresses of all links.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        self.socket.dump("list addresses", &codec::get_addresses(), codec::read_address)
    }

    /// All unicast routes of all tables.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn routes(&mut self) -> Result<Vec<RouteEntry>, NetlinkError> {
        let mut routes = Vec::new();
        for is_ipv6 in [false, true] {
            match self.socket.dump("list routes", &codec::get_routes(is_ipv6), codec::read_route) {
                Ok(found) => routes.extend(found),
                // A kernel without IPv6.
                Err(error) if is_ipv6 && error.errno() == Some(rustix::io::Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(routes)
    }

    /// Reads what `desired` speaks about, and no more.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn observe(&mut self, desired: &Desired) -> Result<State, NetlinkError> {
        let mut names: Vec<&str> = desired.absent.iter().map(String::as_str).collect();
        for spec in &desired.links {
            names.push(&spec.name);
            names.extend(spec.master.as_deref());
        }
        names.extend(desired.routes.iter().map(|route| route.link.as_str()));
        names.sort_unstable();
        names.dedup();
        let mut state = State::default();
        for name in names {
            state.links.extend(self.link(name)?);
        }
        if desired.links.iter().any(|spec| !spec.addresses.is_empty()) {
            state.addresses = self.addresses()?;
        }
        if !desired.routes.is_empty() {
            state.routes = self.routes()?;
        }
        Ok(state)
    }

    /// Carries out one step.
    ///
    /// # Errors
    /// The kernel refused; nothing has changed.
    pub fn apply(&mut self, operation: &Operation) -> Result<(), NetlinkError> {
        let message = match operation {
            Operation::DeleteLink { name } => codec::delete_link(self.index(name)?),
            Operation::AddLink { name, kind, change } => {
                let master = change.master.as_ref().map(|master| self.index(master)).transpose()?;
                codec::add_link(name, kind, change, master)?
            }
            Operation::ChangeLink { name, change } => {
                let master = change.master.as_ref().map(|master| self.index(master)).transpose()?;
                codec::change_link(self.index(name)?, change, master)
            }
            Operation::SetHairpin { name, hairpin } => codec::set_hairpin(self.index(name)?, *hairpin),
            Operation::AddAddress { link, cidr } => codec::add_address(self.index(link)?, *cidr),
            Operation::DeleteAddress { link, cidr } => codec::delete_address(self.index(link)?, *cidr),
            Operation::PutRoute(route) => codec::put_route(route, self.index(&route.link)?),
        };
        self.socket.request(&operation.to_string(), message).map(drop)
    }

    /// Looks, plans and applies until nothing is missing. Says how many steps it took: none on a healthy kernel. Others
    /// may work on the same things meanwhile: what they have done first is not done again.
    ///
    /// # Errors
    /// The kernel refused a step; those before it are done. Or the work was undone again and again.
    pub fn converge(&mut self, desired: &Desired) -> Result<usize, NetlinkError> {
        let mut steps_taken = 0;
        for _ in 0..ROUNDS_MAX {
            let steps = plan(&self.observe(desired)?, desired);
            if steps.is_empty() {
                return Ok(steps_taken);
            }
            for step in &steps {
                match self.apply(step) {
                    Ok(()) => steps_taken += 1,
                    Err(error) if error.is_exists() && may_exist(step) => {}
                    Err(error) if error.is_gone() && may_be_gone(step) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(NetlinkError::Unsettled("a link".to_owned()))
    }

    /// Gives a link that is switched off another name.
    ///
    /// # Errors
    /// The kernel refused, or there is no such link.
    pub fn rename(&mut self, name: &str, new_name: &str) -> Result<(), NetlinkError> {
        let message = codec::rename_link(self.index(name)?, new_name)?;
        self.socket.request(&format!("rename link {name} to {new_name}"), message).map(drop)
    }

    /// Moves a link into another namespace, where it is switched off and has no addresses.
    ///
    /// # Errors
    /// The kernel refused, or there is no such link.
    pub fn move_to(&mut self, name: &str, namespace: &Namespace) -> Result<(), NetlinkError> {
        let message = codec::move_link(self.index(name)?, namespace.raw());
        self.socket.request(&format!("move link {name} to {}", namespace.path().display()), message).map(drop)
    }

    /// Takes a link away, if it is there. Says whether it was.
    ///
    /// # Errors
    /// The kernel refused for another reason than that there is none.
    pub fn delete_link(&mut self, name: &str) -> Result<bool, NetlinkError> {
        match self.apply(&Operation::DeleteLink { name: name.to_owned() }) {
            Ok(()) => Ok(true),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

/// Whether somebody else may have done the same a moment ago. A pair is nobody else's.
fn may_exist(step: &Operation) -> bool {
    match step {
        Operation::AddLink { kind, .. } => !matches!(kind, super::model::Kind::Veth(_)),
        Operation::AddAddress { .. } | Operation::PutRoute(_) => true,
        _ => false,
    }
}

fn may_be_gone(step: &Operation) -> bool {
    matches!(step, Operation::DeleteLink { .. } | Operation::DeleteAddress { .. })
}
