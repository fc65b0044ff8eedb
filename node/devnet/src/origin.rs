//! Whether a request may operate the devnet (`covey_`): make blocks, reorganise, cut connections.
//!
//! A page in a browser reaches loopback, too, whoever wrote it. A browser says in `Origin` which page asks: only one of this
//! machine may. And it says in `Host` which name it looked up: a page whose own name was made to lead here has that name in
//! it, so only addresses and `localhost` will do. Programs send no `Origin`, and connect to the address that is shown.
//!
//! What a real node has, too, is answered to anybody: it needs keys where it changes anything.

use hyper::{HeaderMap, Uri};
use std::net::IpAddr;

/// Whether whoever sends a request with this target and these headers may operate the devnet.
pub(crate) fn may_operate(target: &Uri, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_of_this_machine = match text("origin") {
        None => true,
        Some(origin) => origin.parse::<Uri>().ok().and_then(|origin| origin.host().map(is_loopback)).unwrap_or(false),
    };
    let host = match text("host") {
        Some(host) => host.parse::<Uri>().ok().and_then(|host| host.host().map(is_no_name)),
        None => target.host().map(is_no_name),
    };
    is_of_this_machine && host.unwrap_or(false)
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(|address| address.is_loopback())
}

fn is_no_name(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || address(host).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(host: Option<&str>, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in [("host", host), ("origin", origin)] {
            if let Some(value) = value {
                headers.insert(name, value.parse().unwrap());
            }
        }
        may_operate(&Uri::from_static("/"), &headers)
    }

    #[test]
    fn programs_and_pages_of_this_machine_may() {
        for host in ["127.0.0.1:9944", "localhost:9944", "[::1]:9944", "192.168.1.9:9944", "127.0.0.1"] {
            assert!(may(Some(host), None), "{host}");
            assert!(may(Some(host), Some("http://localhost:3000")), "{host}");
            assert!(may(Some(host), Some("http://127.0.0.1:8080")), "{host}");
            assert!(may(Some(host), Some("http://[::1]:8080")), "{host}");
        }
    }

    #[test]
    fn pages_from_elsewhere_may_not_whatever_name_leads_here() {
        let evil =
            ["https://evil.example", "null", "", "http://localhost.evil.example", "file://", "http://192.168.1.9"];
        for origin in evil {
            assert!(!may(Some("127.0.0.1:9944"), Some(origin)), "{origin}");
        }
        for host in [Some("evil.example:9944"), Some("evil.example"), Some(""), Some("127.0.0.1.evil.example"), None] {
            assert!(!may(host, None), "{host:?}");
        }
    }
}
