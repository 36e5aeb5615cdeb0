//! Knows which objects are named by whom, and has each watched.
//!
//! Owns:    the informers under its sibling `watches`.
//! Needs:   that sibling, and the API when an object is read.
//! Restart: permanent. It takes away what its predecessor left; the keeper, restarted with it, names everything again.
//! Fails:   when the sibling can't be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_client::informer::{Informer, InformerArgs, Kind, informer};
use k3sd_runtime::{Actor, ActorError, Address, ChildSpec, Context, SupervisorRef};
use k8s_openapi::NamespaceResourceScope;
use kube::Api;
use tokio::sync::watch;

use super::{Follow, ObjectRef, ObjectsMsg, Sort, Source};
use crate::keeper::KeeperMsg;

/// How long the sibling may take to add, list or remove a child; it does nothing else.
const SIBLING_LIMIT: Duration = Duration::from_secs(20);
/// Changes of one object that may wait; further ones become one.
const CHANGES_MAX: usize = 4;
/// The sibling's name.
pub(crate) const WATCHES: &str = "watches";

/// What it is started with.
#[derive(Clone)]
pub(crate) struct ObjectsArgs {
    pub(crate) connect: Connect,
    pub(crate) place: Arc<watch::Sender<Option<Address<ObjectsMsg>>>>,
    pub(crate) keeper: watch::Receiver<Option<Address<KeeperMsg>>>,
}

/// The actor.
pub(crate) struct ObjectsActor {
    args: ObjectsArgs,
    watches: SupervisorRef,
    watched: BTreeMap<ObjectRef, Watched>,
    count: u64,
}

struct Watched {
    users: BTreeSet<String>,
    number: u64,
    source: Source,
}

impl Watched {
    fn child(&self, object: &ObjectRef) -> String {
        format!("{}-{}", object.sort.word(), self.number)
    }
}

impl Actor for ObjectsActor {
    type Args = ObjectsArgs;
    type Msg = ObjectsMsg;

    async fn init(ctx: &mut Context<ObjectsMsg>, args: ObjectsArgs) -> Result<Self, ActorError> {
        let parent = ctx.path().rsplit_once('/').map_or("", |(parent, _)| parent);
        let path = if parent.is_empty() { WATCHES.to_owned() } else { format!("{parent}/{WATCHES}") };
        let watches = ctx.system().supervisor(&path)?;
        for left in watches.list(SIBLING_LIMIT).await? {
            watches.remove(SIBLING_LIMIT, &left.name).await?;
        }
        args.place.send_replace(Some(ctx.address()));
        Ok(Self { args, watches, watched: BTreeMap::new(), count: 0 })
    }

    async fn handle(&mut self, ctx: &mut Context<ObjectsMsg>, message: ObjectsMsg) -> Result<(), ActorError> {
        match message {
            ObjectsMsg::Keep { uid, objects } => self.keep(ctx, &uid, objects).await?,
            ObjectsMsg::Want { object, reply } => {
                reply.send(self.watched.get(&object).map(|watched| watched.source.clone()));
            }
            ObjectsMsg::Changed { object, number, follow } => self.changed(ctx, object, number, follow),
            ObjectsMsg::Removed => {}
        }
        Ok(())
    }
}

impl ObjectsActor {
    async fn keep(
        &mut self,
        ctx: &mut Context<ObjectsMsg>,
        uid: &str,
        objects: BTreeSet<ObjectRef>,
    ) -> Result<(), ActorError> {
        let mut unused = Vec::new();
        for (object, watched) in &mut self.watched {
            if !objects.contains(object) && watched.users.remove(uid) && watched.users.is_empty() {
                unused.push(object.clone());
            }
        }
        for object in unused {
            let Some(watched) = self.watched.remove(&object) else { continue };
            let (watches, name) = (self.watches.clone(), watched.child(&object));
            ctx.pipe(async move {
                // A child that died for good is gone as well.
                watches.remove(SIBLING_LIMIT, &name).await.ok();
                ObjectsMsg::Removed
            });
        }
        for object in objects {
            if let Some(watched) = self.watched.get_mut(&object) {
                watched.users.insert(uid.to_owned());
            } else {
                self.watch(ctx, uid, object).await?;
            }
        }
        Ok(())
    }

    async fn watch(&mut self, ctx: &mut Context<ObjectsMsg>, uid: &str, object: ObjectRef) -> Result<(), ActorError> {
        self.count += 1;
        let number = self.count;
        let name = format!("{}-{number}", object.sort.word());
        let (child, source) = match object.sort {
            Sort::ConfigMap => {
                let (child, informer) = one(&name, &self.args.connect, &object);
                (child, Source::ConfigMap(informer))
            }
            Sort::Secret => {
                let (child, informer) = one(&name, &self.args.connect, &object);
                (child, Source::Secret(informer))
            }
        };
        self.watches.add(SIBLING_LIMIT, child).await?;
        let (subscriber, about) = (source.clone(), object.clone());
        ctx.pipe(async move {
            let follow = match subscriber {
                Source::ConfigMap(mut informer) => informer.subscribe(CHANGES_MAX).await.ok().map(Follow::ConfigMap),
                Source::Secret(mut informer) => informer.subscribe(CHANGES_MAX).await.ok().map(Follow::Secret),
            };
            ObjectsMsg::Changed { object: about, number, follow: follow.map(Box::new) }
        });
        self.watched.insert(object, Watched { users: BTreeSet::from([uid.to_owned()]), number, source });
        Ok(())
    }

    /// Tells the keeper, and waits for the next change.
    fn changed(&mut self, ctx: &mut Context<ObjectsMsg>, object: ObjectRef, number: u64, follow: Option<Box<Follow>>) {
        let Some(watched) = self.watched.get(&object).filter(|watched| watched.number == number) else { return };
        let keeper = self.args.keeper.borrow().clone();
        if let Some(keeper) = keeper {
            // A keeper that is away looks at everything when it is back.
            keeper.cast(KeeperMsg::Touched { uids: watched.users.iter().cloned().collect() }).ok();
        }
        let Some(mut follow) = follow else {
            tracing::warn!(kind = object.sort.word(), "an object's changes can't be followed");
            return;
        };
        ctx.pipe(async move {
            let goes_on = follow.next().await;
            ObjectsMsg::Changed { object, number, follow: goes_on.then_some(follow) }
        });
    }
}

fn one<K: Kind + kube::Resource<Scope = NamespaceResourceScope>>(
    name: &str,
    connect: &Connect,
    object: &ObjectRef,
) -> (ChildSpec, Informer<K>) {
    let namespace = object.namespace.clone();
    let args = InformerArgs::at(connect.clone(), move |client| Api::<K>::namespaced(client, &namespace));
    informer(name, args.fields(&format!("metadata.name={}", object.name)))
}
