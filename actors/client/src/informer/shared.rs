//! One informer per kind for everybody in the process who asks: an object is decoded once and kept once.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use k3sd_runtime::{ChildSpec, Spec, Strategy};

use super::reflector::ReflectorArgs;
use super::{Index, Informer, InformerArgs, Kind, prepare, start};
use crate::api::Connect;

/// How many deaths of informers are borne: there are dozens, and none of them takes another along.
const RESTARTS: u32 = 20;
const PERIOD: Duration = Duration::from_secs(60);

/// Collects who wants to read which kind, while a tree is put together; the actors come with [`Shared::spec`].
pub struct Shared {
    connect: Connect,
    wanted: BTreeMap<String, (TypeId, Box<dyn Wanted>)>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("wanted", &self.wanted.keys()).finish_non_exhaustive()
    }
}

/// An informer that isn't a child yet; its kind is forgotten.
trait Wanted: Send {
    fn as_any(&mut self) -> &mut dyn Any;
    fn child(self: Box<Self>, name: &str) -> ChildSpec;
}

struct Planned<K: Kind> {
    args: ReflectorArgs<K>,
    informer: Informer<K>,
}

impl<K: Kind> Wanted for Planned<K> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn child(self: Box<Self>, name: &str) -> ChildSpec {
        start(name, self.args)
    }
}

impl Shared {
    /// None yet; all of them will read with one identity, which has to be allowed to.
    pub fn new(connect: Connect) -> Self {
        Self { connect, wanted: BTreeMap::new() }
    }

    /// What they read with, for an informer of one's own.
    pub fn connect(&self) -> Connect {
        self.connect.clone()
    }

    /// The informer of all objects of a kind.
    pub fn informer<K: Kind>(&mut self) -> Informer<K> {
        self.indexed(Vec::new())
    }

    /// The same, found by these as well. An index of a name that is known already has to be the same function: whoever
    /// names it first gives it.
    pub fn indexed<K: Kind>(&mut self, indexes: Vec<Index<K>>) -> Informer<K> {
        let (group, plural) = (K::group(&()), K::plural(&()));
        let name = if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") };
        let connect = &self.connect;
        let (_, wanted) = self.wanted.entry(name).or_insert_with(|| {
            let (args, informer) = prepare(InformerArgs::<K>::all(connect.clone()));
            (TypeId::of::<K>(), Box::new(Planned { args, informer }))
        });
        let Some(planned) = wanted.as_any().downcast_mut::<Planned<K>>() else {
            unreachable!("a resource has one type in this process");
        };
        let known = &mut planned.args.informer.indexes;
        let mut all = known.to_vec();
        all.extend(indexes.into_iter().filter(|index| known.iter().all(|known| known.name != index.name)));
        *known = all.into();
        planned.informer.clone()
    }

    /// The actors, which leave each other alone. Nobody else can be added.
    pub fn spec(self) -> Spec {
        let spec = Spec::new(Strategy::OneForOne).budget(RESTARTS, PERIOD);
        self.wanted.into_iter().fold(spec, |spec, (name, (_, wanted))| spec.child(wanted.child(&name)))
    }
}
