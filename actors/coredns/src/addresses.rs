//! Keeps the addresses of the DNS on the loopback link, so that they are this host's own: pods reach them through their
//! bridge without a proxy.
//!
//! Owns:    these addresses on the loopback link, and nothing else there.
//! Needs:   the right to change links.
//! Restart: permanent. What is there is there; it stays when this ends, so that names are answered by the next life at once.
//! Fails:   when its thread is gone. What the kernel refuses is tried again.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k3sd_netlink::route::{AddressNews, Desired, LinkSpec, Operation, Route, State};
use k3sd_netlink::{Cidr, NetlinkError};
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Backoff, ChildSpec, Context, Message, Rng, TimerId, worker};
use tokio::io::unix::AsyncFd;

/// The loopback link.
const LINK: &str = "lo";
/// The waits after a failure.
const RETRY: Backoff = Backoff {
    free_attempts: 0,
    delay_min: Duration::from_millis(200),
    delay_max: Duration::from_secs(30),
    factor: 2.0,
    jitter: 0.2,
    reset_after: Duration::MAX,
};

/// What the actor is started with.
#[derive(Clone, Debug)]
pub(crate) struct AddressesArgs {
    pub(crate) addresses: Arc<[IpAddr]>,
    /// Whether they have to be there, or must not.
    pub(crate) is_wanted: bool,
}

/// What the actor understands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AddressesMsg {
    /// Look, and mend. Safe to repeat.
    ApplyTick,
    /// Somebody changed addresses.
    AddressesTouched,
}

impl Message for AddressesMsg {
    const KINDS: &'static [&'static str] = &["ApplyTick", "AddressesTouched"];

    fn kind(&self) -> usize {
        match self {
            Self::ApplyTick => 0,
            Self::AddressesTouched => 1,
        }
    }
}

/// The actor.
pub(crate) struct Addresses {
    args: AddressesArgs,
    thread: Blocking<()>,
    news: Option<Arc<AsyncFd<AddressNews>>>,
    failures: u32,
    retry: Option<TimerId>,
    rng: Rng,
}

/// Keeps addresses there, as a child.
pub(crate) fn present(addresses: Arc<[IpAddr]>) -> ChildSpec {
    worker::<Addresses>("addresses", AddressesArgs { addresses, is_wanted: true })
}

/// Takes addresses away, as a child that has nothing more to do then: for a cluster whose DNS is somebody else, or nobody.
pub fn absent(addresses: &[IpAddr]) -> ChildSpec {
    let args = AddressesArgs { addresses: addresses.into(), is_wanted: false };
    worker::<Addresses>("addresses", args)
}

/// An address alone, as one has it on the loopback link.
fn host(address: IpAddr) -> Option<Cidr> {
    Cidr::new(address, if address.is_ipv4() { 32 } else { 128 })
}

fn desired(addresses: &[IpAddr]) -> Desired {
    let addresses = addresses.iter().filter_map(|address| host(*address)).collect();
    let link = LinkSpec { name: LINK.to_owned(), addresses, ..LinkSpec::default() };
    Desired { links: vec![link], ..Desired::default() }
}

/// The steps that take our addresses away. Another network with the same address isn't ours.
fn removal(state: &State, addresses: &[IpAddr]) -> Vec<Operation> {
    let index = state.link(LINK).map(|link| link.index);
    let found = state.addresses.iter().filter(|found| Some(found.index) == index);
    let ours = found.filter(|found| addresses.iter().any(|address| host(*address) == Some(found.cidr)));
    ours.map(|found| Operation::DeleteAddress { link: LINK.to_owned(), cidr: found.cidr }).collect()
}

fn apply(args: &AddressesArgs) -> Result<usize, NetlinkError> {
    let mut route = Route::open()?;
    let desired = desired(&args.addresses);
    if args.is_wanted {
        return route.converge(&desired);
    }
    let steps = removal(&route.observe(&desired)?, &args.addresses);
    for step in &steps {
        match route.apply(step) {
            Err(error) if !error.is_gone() => return Err(error),
            _ => {}
        }
    }
    Ok(steps.len())
}

#[expect(deprecated, reason = "its successor is unsafe, as a descriptor may be closed early; this one is owned")]
fn wakeable(news: AddressNews) -> std::io::Result<AsyncFd<AddressNews>> {
    AsyncFd::new(news)
}

/// Waits until somebody changes an address of any link.
async fn touched(news: Arc<AsyncFd<AddressNews>>) -> AddressesMsg {
    while let Ok(mut guard) = news.readable().await {
        let heard = guard.get_inner().drain();
        guard.clear_ready();
        match heard {
            Ok(true) => return AddressesMsg::AddressesTouched,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "changes of addresses are not heard of any more"
                );
                break;
            }
        }
    }
    std::future::pending().await
}

impl Actor for Addresses {
    type Args = AddressesArgs;
    type Msg = AddressesMsg;

    async fn init(ctx: &mut Context<AddressesMsg>, args: AddressesArgs) -> Result<Self, ActorError> {
        let thread = Blocking::start(ctx, 1, || Ok::<_, Infallible>(())).await?;
        let news = if args.is_wanted {
            match thread.run(|()| AddressNews::open()).await? {
                Ok(news) => Some(Arc::new(wakeable(news)?)),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "an address of the DNS that is taken away will not be noticed");
                    None
                }
            }
        } else {
            None
        };
        if let Some(news) = &news {
            ctx.pipe(touched(news.clone()));
        }
        ctx.send_self(AddressesMsg::ApplyTick);
        let rng = ctx.rng();
        Ok(Self { args, thread, news, failures: 0, retry: None, rng })
    }

    async fn handle(&mut self, ctx: &mut Context<AddressesMsg>, message: AddressesMsg) -> Result<(), ActorError> {
        if let (AddressesMsg::AddressesTouched, Some(news)) = (message, &self.news) {
            ctx.pipe(touched(news.clone()));
        }
        let args = self.args.clone();
        let outcome = self.thread.run(move |()| apply(&args)).await?;
        if let Some(timer) = self.retry.take() {
            ctx.cancel(timer);
        }
        match outcome {
            Ok(steps) => {
                self.failures = 0;
                if steps > 0 {
                    let is_wanted = self.args.is_wanted;
                    tracing::info!(addresses = ?self.args.addresses, is_wanted, "set the addresses of the cluster's DNS");
                }
            }
            Err(error) => {
                self.failures += 1;
                let error = &error as &dyn std::error::Error;
                if self.failures == 1 {
                    tracing::error!(error, "the addresses of the cluster's DNS can't be set; trying again");
                }
                ctx.note(vec![format!("failed {} times: {error}", self.failures)]);
                let delay = RETRY.delay(self.failures, &mut self.rng);
                self.retry = Some(ctx.send_after(delay, AddressesMsg::ApplyTick));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use k3sd_netlink::route::{Address, Link};

    use super::*;

    #[test]
    fn only_our_own_addresses_are_taken_away() {
        let ours = [IpAddr::from([10, 43, 0, 10]), "fd00:43::a".parse().expect("an address")];
        let link = |index, name: &str| Link {
            index,
            name: name.to_owned(),
            kind: String::new(),
            up: true,
            promiscuous: false,
            mtu: 65_536,
            mac: None,
            master: None,
            hairpin: None,
            alias: None,
        };
        let cidr = |text: &str| text.parse::<Cidr>().expect("a network");
        let addresses = [
            (1, "127.0.0.1/8"),
            (1, "10.43.0.10/32"),
            (1, "fd00:43::a/128"),
            (1, "10.43.0.10/24"),
            (2, "10.43.0.10/32"),
        ];
        let addresses = addresses.map(|(index, text)| Address { index, cidr: cidr(text) });
        let state =
            State { links: vec![link(1, "lo"), link(2, "eth0")], addresses: addresses.into(), routes: Vec::new() };
        let taken: Vec<String> = removal(&state, &ours).iter().map(ToString::to_string).collect();
        assert_eq!(taken, ["delete address 10.43.0.10/32 of lo", "delete address fd00:43::a/128 of lo"]);
        assert!(k3sd_netlink::route::plan(&state, &desired(&ours)).is_empty(), "what is there is left as it is");
    }
}
