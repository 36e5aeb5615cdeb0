//! From differences to changes of the kernel's tables; pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use k3sd_netlink::nft::{self, Change, Contents, Data, Family, Table};

use crate::model::{Difference, Ledger};
use crate::rules::{
    self, Element, ElementKey, LOCAL_INDEX, Place, Policy, Recipe, SetId, add_chain, endpoint_of, read_address,
    recipe_of, source_bits,
};

/// Chains of recipes that nobody uses any more stay until so many more than are in use have come together: services go
/// back and forth between few endpoints, and making a chain costs more than keeping it.
const SPARE_CHAINS_MAX: usize = 256;
const UDP: u8 = 17;

/// What of the kernel's tables is known beside elements that follow from services, by family.
#[derive(Debug, Clone, Default)]
pub(super) struct Told([ToldFamily; 2]);

/// The same of one family.
#[derive(Debug, Clone, Default)]
pub(super) struct ToldFamily {
    /// Recipes that have a chain.
    recipes: BTreeSet<Recipe>,
    /// How many of them were in use when all was last written.
    in_use: usize,
    /// Lengths of networks that clients are checked by; the longest first.
    source_bits: Vec<u8>,
}

impl ToldFamily {
    fn has_too_many(&self) -> bool {
        self.recipes.len() > self.in_use * 2 + SPARE_CHAINS_MAX
    }
}

impl Told {
    /// Notes what a family's table is like now.
    pub(super) fn note(&mut self, is_ipv6: bool, family: ToldFamily) {
        self.0[usize::from(is_ipv6)] = family;
    }
}

/// A family's table as it should be, and what will be known of it. Chains that are there and that nobody uses stay, as they
/// do between two changes.
pub(super) fn everything(
    ledger: &Ledger,
    policy: &Policy,
    is_ipv6: bool,
    found: Option<&Table>,
) -> (Table, ToldFamily) {
    let mut told = ToldFamily::default();
    let mut contents: BTreeMap<SetId, Contents> = BTreeMap::new();
    let mut lengths = BTreeSet::new();
    for (key, value) in ledger.iter().filter(|(key, _)| key.is_ipv6() == is_ipv6) {
        let element = nft::Element { data: Element::data(value), comment: None };
        contents.entry(key.set()).or_default().insert(key.bytes().to_vec(), element);
        match key.set() {
            SetId::Services => told.recipes.extend(recipe_of(value).into_iter().flat_map(Recipe::closure)),
            SetId::Sources => lengths.extend(source_bits(key)),
            _ => {}
        }
    }
    told.in_use = told.recipes.len();
    told.source_bits = lengths.into_iter().rev().collect();
    let used = told.recipes.clone();
    told.recipes.extend(spare(found));
    if told.has_too_many() {
        told.recipes = used;
    }
    let elements = |set| contents.remove(&set).unwrap_or_default();
    let table = rules::table(is_ipv6, policy, &told.recipes, &told.source_bits, elements);
    (table, told)
}

/// Recipes that have a chain in the kernel.
fn spare(found: Option<&Table>) -> impl Iterator<Item = Recipe> {
    let known = found.and_then(|found| found.set(SetId::Recipes.name())).and_then(|set| set.elements.as_ref());
    known.into_iter().flatten().filter_map(|(key, _)| Recipe::decode(key)).flat_map(Recipe::closure)
}

/// The changes to each family's table, if they can be told from the differences alone; otherwise everything has to be
/// looked at.
pub(super) fn changes(
    differences: &[Difference],
    told: &mut Told,
    policy: &Policy,
) -> Option<Vec<(Family, Vec<Change>)>> {
    // Other lengths of networks make other rules; that is rare.
    if differences.iter().any(|difference| difference.key.set() == SetId::Sources) {
        return None;
    }
    if told.0.iter().any(ToldFamily::has_too_many) {
        return None;
    }
    let mut families = Vec::new();
    for is_ipv6 in [false, true] {
        let ours: Vec<_> = differences.iter().filter(|difference| difference.key.is_ipv6() == is_ipv6).collect();
        if ours.is_empty() {
            continue;
        }
        let mut changes = new_chains(&ours, told, is_ipv6, policy);
        let (mut gone, mut new): (BTreeMap<SetId, Contents>, BTreeMap<SetId, Contents>) = Default::default();
        for difference in ours {
            let (set, key) = (difference.key.set(), difference.key.bytes());
            let element = |value: &[u8]| nft::Element { data: Element::data(value), comment: None };
            if let Some(old) = &difference.old {
                gone.entry(set).or_default().insert(key.to_vec(), element(old));
            }
            if let Some(value) = &difference.new {
                new.entry(set).or_default().insert(key.to_vec(), element(value));
            }
        }
        let name = |set: SetId| set.name().to_owned();
        changes.extend(gone.into_iter().map(|(set, elements)| Change::DeleteElements { set: name(set), elements }));
        changes.extend(new.into_iter().map(|(set, elements)| Change::AddElements { set: name(set), elements }));
        families.push((rules::family(is_ipv6), changes));
    }
    Some(families)
}

fn new_chains(differences: &[&Difference], told: &mut Told, is_ipv6: bool, policy: &Policy) -> Vec<Change> {
    let ToldFamily { recipes: known, source_bits: bits, .. } = &mut told.0[usize::from(is_ipv6)];
    let services = differences.iter().filter(|difference| difference.key.set() == SetId::Services);
    let wanted = services.filter_map(|difference| recipe_of(difference.new.as_ref()?));
    let mut changes = Vec::new();
    for recipe in wanted.flat_map(Recipe::closure) {
        if known.insert(recipe) {
            changes.extend(add_chain(&recipe, is_ipv6, policy, bits));
        }
    }
    changes
}

/// All endpoints of a service, as address and port in the kernel's form.
fn endpoints<'a>(ledger: &'a Ledger, service: &'a ElementKey) -> impl Iterator<Item = &'a [u8]> {
    let recipe = ledger.get(service).and_then(recipe_of);
    let groups = recipe
        .map(|recipe| [(0, recipe.endpoints), (LOCAL_INDEX, recipe.local.unwrap_or(0))].map(|group| (recipe, group)));
    let indexes = groups
        .into_iter()
        .flatten()
        .flat_map(|(recipe, (first, count))| (first..first + count).map(move |index| (recipe, index)));
    indexes.filter_map(|(recipe, index)| endpoint_of(&recipe, ledger.get(&service.endpoint(&recipe, index))?))
}

/// Whether only services have this address, so that no connection to it can do without a translation.
pub(super) fn is_service(ledger: &Ledger, address: IpAddr) -> bool {
    ledger.get(&rules::service_address(address).key).is_some()
}

/// Of which services clients may be remembered with an endpoint that is gone: whether there are any.
pub(super) fn loses_sticky_endpoints(differences: &[Difference]) -> bool {
    differences.iter().any(|difference| difference.key.set() == SetId::StickyEndpoints && difference.old.is_some())
}

/// Of the clients that the kernel remembers, those whose endpoint is gone.
pub(super) fn stale_clients(ledger: &Ledger, is_ipv6: bool, known: Contents) -> Contents {
    let mut services: HashMap<Vec<u8>, BTreeSet<Vec<u8>>> = HashMap::new();
    let mut is_stale = |key: &[u8], element: &nft::Element| {
        let address_bytes = if is_ipv6 { 16 } else { 4 };
        let service = key.get(address_bytes..).unwrap_or_default();
        let places = services.entry(service.to_vec()).or_insert_with(|| {
            let service = ElementKey::new_service(is_ipv6, service);
            endpoints(ledger, &service).map(<[u8]>::to_vec).collect()
        });
        !matches!(&element.data, Some(Data::Value(value)) if places.contains(value))
    };
    known.into_iter().filter(|(key, element)| is_stale(key, element)).collect()
}

/// Where UDP packets for a service may go: the kernel remembers exchanges, and sends their packets on to where an
/// endpoint was until nobody sends any more.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct UdpEndpoints(HashMap<(IpAddr, u16), Vec<IpAddr>>);

impl UdpEndpoints {
    /// Of the services that differ, or of all.
    pub(super) fn of(ledger: &Ledger, differences: Option<&[Difference]>) -> Self {
        let mut all = Self::default();
        match differences {
            Some(differences) => differences.iter().for_each(|difference| all.look(ledger, &difference.key)),
            None => ledger.iter().for_each(|(key, _)| all.look(ledger, key)),
        }
        all
    }

    fn look(&mut self, ledger: &Ledger, key: &ElementKey) {
        if !matches!(key.set(), SetId::Services | SetId::Endpoints | SetId::StickyEndpoints)
            || key.bytes().first() != Some(&UDP)
        {
            return;
        }
        let Some((_, address, port)) = key.service() else { return };
        if self.0.contains_key(&(address, port)) {
            return;
        }
        let service = key.of_service();
        let endpoints = endpoints(ledger, &service);
        let addresses = endpoints.filter_map(|endpoint| Some(read_address(endpoint, key.is_ipv6())?.0));
        self.0.insert((address, port), addresses.collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an exchange that was begun with `destination` and is answered from another address goes nowhere any more.
    pub(super) fn is_stale(&self, destination: IpAddr, port: u16, answers_from: IpAddr) -> bool {
        if let Some(endpoints) = self.0.get(&(destination, port)) {
            return !endpoints.contains(&answers_from);
        }
        // The address may be the node's, or anybody's to whom packets only pass through: those aren't translated.
        let stand_ins = [Place::NodePort, Place::Balancer].into_iter();
        let mut at_node = stand_ins.filter_map(|place| place.stand_in(destination.is_ipv6()));
        let found = at_node.find_map(|address| self.0.get(&(address, port)));
        answers_from != destination && found.is_some_and(|endpoints| !endpoints.contains(&answers_from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Owner;
    use crate::rules::{Front, Masquerade, family};

    fn policy() -> Policy {
        Policy {
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            mark: 0x4000,
            node_port_cidrs: None,
            localhost_node_ports: true,
        }
    }

    fn recipe(endpoints: u32) -> Recipe {
        Recipe {
            place: Place::Address,
            checks_source: false,
            masquerade: Masquerade::Never,
            endpoints,
            drops: false,
            local: None,
            sticky_seconds: 0,
        }
    }

    fn front(protocol: u8, last: u8) -> Front {
        Front::new(protocol, Place::Address, [10, 43, 0, last].into(), 53)
    }

    #[test]
    fn a_recipe_gets_its_chain_once() {
        let (mut ledger, owner): (_, Owner) = (Ledger::default(), "a/b".into());
        ledger.claim(&owner, front(6, 1).service(&recipe(2)));
        let (table, of_family) = everything(&ledger, &policy(), false, None);
        let mut told = Told::default();
        told.note(false, of_family);
        assert!(table.chain("address-2").is_some());
        assert!(everything(&ledger, &policy(), true, None).0.chain("address-2").is_none());
        ledger.told();
        ledger.claim(&owner, front(6, 1).service(&recipe(3)));
        ledger.claim(&owner, front(6, 2).service(&recipe(2)));
        let made = changes(&ledger.differences(), &mut told, &policy()).unwrap();
        let [(of, made)] = &made[..] else { panic!("one family: {made:?}") };
        let chains: Vec<_> = made
            .iter()
            .filter_map(|change| if let Change::AddChain { name, .. } = change { Some(name) } else { None })
            .collect();
        assert_eq!((*of, chains), (family(false), vec![&"address-3".to_owned()]));
        assert!(changes(&ledger.differences(), &mut told, &policy()).unwrap()[0].1.len() == 2, "it is known now");
        // A successor finds a chain that nobody uses, and keeps it.
        ledger.claim(&owner, front(6, 2).service(&recipe(3)));
        assert!(everything(&ledger, &policy(), false, None).0.chain("address-2").is_none());
        let (kept, _) = everything(&ledger, &policy(), false, Some(&table));
        assert!(kept.chain("address-2").is_some() && kept.chain("address-3").is_some());
    }

    #[test]
    fn chains_that_nobody_uses_are_kept_up_to_a_point() {
        let (mut ledger, owner): (_, Owner) = (Ledger::default(), "a/b".into());
        let with_chains = |count: u32| {
            let recipes: BTreeSet<_> = (0..count).map(recipe).collect();
            rules::table(false, &policy(), &recipes, &[], |_| Contents::new())
        };
        ledger.claim(&owner, front(6, 1).service(&recipe(1)));
        let most = u32::try_from(SPARE_CHAINS_MAX).unwrap() + 2;
        let kept = |found: u32| everything(&ledger, &policy(), false, Some(&with_chains(found))).1.recipes.len();
        assert_eq!((kept(5), kept(most), kept(most + 1)), (5, SPARE_CHAINS_MAX + 2, 1));
    }

    #[test]
    fn other_networks_of_clients_are_looked_at_as_a_whole() {
        let (mut ledger, owner): (_, Owner) = (Ledger::default(), "a/b".into());
        let mut told = Told::default();
        ledger.claim(&owner, front(6, 1).source(&"10.0.0.0/8".parse().unwrap()));
        assert!(changes(&ledger.differences(), &mut told, &policy()).is_none());
        let bits = |is_ipv6| everything(&ledger, &policy(), is_ipv6, None).1.source_bits;
        assert_eq!((bits(false), bits(true)), (vec![8], vec![]));
    }

    #[test]
    fn exchanges_go_on_with_endpoints_that_are_there() {
        let (mut ledger, owner): (_, Owner) = (Ledger::default(), "a/b".into());
        let at_node = Front::new(UDP, Place::NodePort, [10, 43, 0, 1].into(), 30053);
        for front in [front(UDP, 1), at_node] {
            ledger.claim(&owner, front.service(&recipe(1)));
            ledger.claim(&owner, front.endpoint(&recipe(1), 0, [10, 42, 0, 2].into(), 53));
        }
        ledger.claim(&owner, front(6, 2).service(&recipe(0)));
        ledger.claim(&owner, rules::service_address([10, 43, 0, 1].into()));
        assert!(is_service(&ledger, [10, 43, 0, 1].into()) && !is_service(&ledger, [10, 43, 0, 2].into()));
        let all = UdpEndpoints::of(&ledger, None);
        assert_eq!(UdpEndpoints::of(&ledger, Some(&ledger.differences())), all);
        assert_eq!(all.0.len(), 2);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (to, port, from, is_stale) in [
            ("10.43.0.1", 53, "10.42.0.2", false),
            ("10.43.0.1", 53, "10.42.0.3", true),
            ("10.43.0.1", 53, "10.43.0.1", true),
            ("10.43.0.1", 54, "10.42.0.3", false),
            ("192.0.2.1", 30053, "10.42.0.2", false),
            ("192.0.2.1", 30053, "10.42.0.3", true),
            ("8.8.8.8", 30053, "8.8.8.8", false),
        ] {
            assert_eq!(all.is_stale(ip(to), port, ip(from)), is_stale, "{to} {port} {from}");
        }
    }

    #[test]
    fn clients_are_forgotten_whose_endpoint_is_gone() {
        let (mut ledger, owner): (_, Owner) = (Ledger::default(), "a/b".into());
        let sticky = Recipe { sticky_seconds: 60, local: Some(1), ..recipe(1) };
        let service = front(6, 1).service(&sticky);
        ledger.claim(&owner, service.clone());
        for (index, last) in [(0, 2), (LOCAL_INDEX, 3)] {
            ledger.claim(&owner, front(6, 1).endpoint(&sticky, index, [10, 42, 0, last].into(), 80));
        }
        let client = |last: u8, endpoint: u8| {
            let mut key = vec![192, 0, 2, last];
            key.extend(service.key.bytes());
            let data = Some(Data::Value(vec![10, 42, 0, endpoint, 0, 80, 0, 0]));
            (key, nft::Element { data, comment: None })
        };
        let known: Contents = [client(1, 2), client(2, 3), client(3, 4)].into();
        let stale = stale_clients(&ledger, false, known.clone());
        assert_eq!(stale.keys().collect::<Vec<_>>(), [&client(3, 4).0]);
        assert!(!loses_sticky_endpoints(&ledger.differences()));
        ledger.told();
        ledger.release(&owner, &service.key.endpoint(&sticky, 0));
        assert!(loses_sticky_endpoints(&ledger.differences()));
        ledger.release(&owner, &service.key);
        assert_eq!(stale_clients(&ledger, false, known).len(), 3);
    }
}
