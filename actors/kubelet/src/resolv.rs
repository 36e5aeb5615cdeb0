//! Which resolv.conf pods inherit. The rule is K3s': a file whose servers pods can't reach is of no use to them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where it is looked for, the first one first.
const PLACES: [&str; 2] = ["etc/resolv.conf", "run/systemd/resolve/resolv.conf"];
/// Servers that anybody reaches, where the host has none that pods could.
pub const STUB: &str = "nameserver 8.8.8.8\nnameserver 2001:4860:4860::8888\n";
/// The server of some clouds, which is reached although it is link-local.
const CLOUD_SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254));

/// The file below `root` that pods can use; none if a stub has to be written.
#[must_use]
pub fn usable(root: &Path) -> Option<PathBuf> {
    let places = PLACES.iter().map(|place| root.join(place));
    places.into_iter().find(|path| std::fs::read_to_string(path).is_ok_and(|text| is_usable(&text)))
}

/// Whether it names servers, and all of them are reached from elsewhere than this host.
fn is_usable(text: &str) -> bool {
    let mut found = false;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let address: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
        if !address.is_some_and(is_reached) {
            return false;
        }
        found = true;
    }
    found
}

fn is_reached(address: IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    address == CLOUD_SERVER
        || !(is_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_to_be_reached_from_a_pod() {
        for (text, usable) in [
            ("nameserver 192.0.2.1\n", true),
            ("search a b\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n", true),
            ("nameserver 169.254.169.254\n", true),
            ("nameserver 127.0.0.53\n", false),
            ("nameserver 192.0.2.1\nnameserver 127.0.0.53\n", false),
            ("nameserver ::1\n", false),
            ("nameserver fe80::1\n", false),
            ("nameserver nonsense\n", false),
            ("# nameserver 192.0.2.1\n", false),
            ("", false),
        ] {
            assert_eq!(is_usable(text), usable, "{text:?}");
        }
        assert!(is_usable(STUB));
    }

    #[test]
    fn the_first_usable_file_is_taken() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(usable(root.path()), None);
        for place in PLACES {
            std::fs::create_dir_all(root.path().join(place).parent().expect("a parent")).expect("it is made");
        }
        std::fs::write(root.path().join(PLACES[0]), "nameserver 127.0.0.53\n").expect("it is written");
        std::fs::write(root.path().join(PLACES[1]), "nameserver 192.0.2.1\n").expect("it is written");
        assert_eq!(usable(root.path()), Some(root.path().join(PLACES[1])));
    }
}
