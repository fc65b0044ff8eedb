//! Names in addresses that the operator gave: `/dns4/NAME/tcp/PORT` and the like, asked of the system at each dial.
//!
//! The system's resolver does it, as for any other program here; a resolver of our own would be a hundred crates. TXT
//! records, which `/dnsaddr` needs, are beyond it. Names that strangers give are not looked up at all.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::net::IpAddr;
use std::time::Duration;

/// Addresses that one name gives.
const ADDRESSES_MAX: usize = 4;
/// For the resolver to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether it needs what the system's resolver does not give.
pub(super) fn is_dnsaddr(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::Dnsaddr(_)))
}

/// The address with what its name means now; none if that is nothing, or nothing in time.
pub(super) async fn resolve(address: &Multiaddr) -> Vec<Multiaddr> {
    let Some(head) = address.iter().next() else { return Vec::new() };
    let (name, v4, v6) = match &head {
        Protocol::Dns(name) => (name, true, true),
        Protocol::Dns4(name) => (name, true, false),
        Protocol::Dns6(name) => (name, false, true),
        _ => return Vec::new(),
    };
    let found = match tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((name.as_ref(), 0))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(%name, %error, "a bootstrap name means nothing to the system's resolver");
            return Vec::new();
        }
        Err(_) => {
            tracing::warn!(%name, "the system's resolver does not answer");
            return Vec::new();
        }
    };
    let of_kind = found.map(|socket| socket.ip()).filter(|ip| if ip.is_ipv4() { v4 } else { v6 });
    let head = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => Protocol::Ip4(ip),
        IpAddr::V6(ip) => Protocol::Ip6(ip),
    };
    let mut addresses: Vec<Multiaddr> =
        of_kind.map(|ip| std::iter::once(head(ip)).chain(address.iter().skip(1)).collect()).collect();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::place::begins_with_name;

    #[tokio::test]
    async fn a_name_becomes_addresses_of_its_kind_with_the_rest_as_it_was() {
        let named: Multiaddr = "/dns4/localhost/udp/7/quic-v1".parse().unwrap();
        assert!(begins_with_name(&named) && !begins_with_name(&"/ip4/1.2.3.4/tcp/1".parse().unwrap()));
        let found = resolve(&named).await;
        assert_eq!(found, ["/ip4/127.0.0.1/udp/7/quic-v1".parse::<Multiaddr>().unwrap()]);
        assert!(resolve(&"/ip4/1.2.3.4/tcp/1".parse().unwrap()).await.is_empty());
    }
}
