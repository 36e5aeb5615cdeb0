//! What a server has to know of the machine it runs on.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

/// Addresses that are nobody's (RFC 5737 and RFC 3849): a route to them is the default route.
const FAR_AWAY: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// The host's name, in lower case as names of nodes are.
pub(crate) fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase()
}

/// The id that stays with this machine: eight hexadecimal digits, made at first.
pub(crate) fn node_id(path: &Path, random: u64) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let id = format!("{:08x}", random & 0xffff_ffff);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, format!("{id}\n"))?;
    Ok(id)
}

/// The address with which this machine shows itself to others: that of the default route, IPv4 first. `None` when there
/// is no default route.
pub(crate) fn address() -> Option<IpAddr> {
    FAR_AWAY.iter().find_map(|target| source_towards(*target))
}

/// Asks the kernel which address it would send from. Nothing is sent.
fn source_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    let source = socket.local_addr().ok()?.ip();
    (!source.is_unspecified() && !source.is_loopback()).then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_no_address_to_show() {
        assert_eq!(source_towards(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9)), None);
        assert!(address().is_none_or(|address| !address.is_loopback()));
        assert_eq!(name(), name().to_lowercase());
    }

    #[test]
    fn an_id_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node/id");
        let id = node_id(&path, 0x1_0000_00ab).unwrap();
        assert_eq!(id, "000000ab");
        assert_eq!(node_id(&path, 7).unwrap(), id);
        fs::write(&path, "given\n").unwrap();
        assert_eq!(node_id(&path, 0x1_0000_00ab).unwrap(), "given");
    }
}
