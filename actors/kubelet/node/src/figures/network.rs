//! What the interfaces of a network namespace have carried: pure, from the kernel's table.

use k3sd_kubelet_base::stats::{InterfaceStats, NetworkStats};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Reads `/proc/<pid>/net/dev`. The main interface is `main` if there is one of that name, otherwise `eth0`.
pub(super) fn parse(text: &str, main: Option<&str>, time: &Time) -> Option<NetworkStats> {
    let interfaces: Vec<InterfaceStats> = text.lines().filter_map(line).filter(|one| one.name != "lo").collect();
    let main = interfaces.iter().find(|one| one.name == main.unwrap_or("eth0"))?.clone();
    Some(NetworkStats { time: Some(time.clone()), main, interfaces })
}

fn line(text: &str) -> Option<InterfaceStats> {
    let (name, rest) = text.split_once(':')?;
    let numbers: Vec<u64> = rest.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
    let at = |place: usize| numbers.get(place).copied();
    Some(InterfaceStats {
        name: name.trim().to_owned(),
        rx_bytes: Some(at(0)?),
        rx_errors: at(2),
        rx_packets: [at(1), at(3)],
        tx_bytes: Some(at(8)?),
        tx_errors: at(10),
        tx_packets: [at(9), at(11)],
    })
}

/// The interface of the default route, from `/proc/net/route`.
pub(super) fn default_interface(text: &str) -> Option<String> {
    let fields = text.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let is_default = |fields: &Vec<&str>| fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000");
    fields.into_iter().find(is_default).and_then(|fields| fields.first().map(|name| (*name).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: &str = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0: 100 2 3 4 5 6 7 8 200 10 11 12 13 14 15 16\n";

    #[test]
    fn the_kernels_table_is_read() {
        let time = crate::status::time(jiff::Timestamp::UNIX_EPOCH);
        let found = parse(DEVICES, None, &time).unwrap();
        assert_eq!((found.main.rx_bytes, found.main.tx_bytes, found.main.tx_errors), (Some(100), Some(200), Some(11)));
        assert_eq!((found.main.rx_packets, found.main.tx_packets), ([Some(2), Some(4)], [Some(10), Some(12)]));
        assert_eq!(found.interfaces.len(), 1);
        assert_eq!(parse(DEVICES, Some("ens3"), &time), None);
        assert_eq!(parse("", None, &time), None);
    }

    #[test]
    fn the_default_route_names_an_interface() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                     eth1 0002000A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n\
                     ens3 00000000 0102000A 0003 0 0 0 00000000 0 0 0\n";
        assert_eq!(default_interface(table).as_deref(), Some("ens3"));
        assert_eq!(default_interface(""), None);
    }
}
