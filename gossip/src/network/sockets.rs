//! What is asked of the kernel for each TCP connection: its congestion control and how much may lie in it unsent.
//!
//! Nothing here fails a connection: where the kernel refuses, it goes on with what it has, and one line says so. Buffer
//! sizes are left alone on purpose: to set `SO_SNDBUF` or `SO_RCVBUF` ends the kernel's own tuning, and 1 MiB of it gave
//! 68 Mbit/s on a line of 110 at 100 ms.

use crate::config::{Congestion, TransportOptions};
use crate::traffic::{CongestionSeen, Counters};
use socket2::SockRef;
use std::io;
use std::sync::{Arc, Once};

/// The largest that the kernel may let a socket's buffers grow: 2.5 times what is on its way on a line of 500 Mbit/s at
/// 100 ms. With the usual 4 MiB such a line carries 136 Mbit/s.
const BUFFERS_MIN: u64 = 16 << 20;

/// Sets up sockets.
#[derive(Clone, Debug)]
pub(super) struct Tuner {
    options: TransportOptions,
    traffic: Arc<Counters>,
    seen: CongestionSeen,
}

impl Tuner {
    pub(super) fn new(options: TransportOptions, traffic: Arc<Counters>, seen: CongestionSeen) -> Tuner {
        Tuner { options, traffic, seen }
    }

    /// Sets up one connection, dialled or accepted.
    pub(super) fn tune(&self, socket: SockRef<'_>) {
        self.traffic.tcp_connections.add(1);
        if let Err(error) = limit_unsent(&socket, self.options.unsent_max) {
            tracing::debug!(%error, "TCP_NOTSENT_LOWAT was refused: gossip waits longer behind bulk");
        }
        let asked = match self.options.congestion {
            Congestion::Bbr => set_congestion(&socket, "bbr"),
            Congestion::System => Ok(()),
        };
        let Ok(name) = congestion(&socket) else { return };
        self.seen.set(&name);
        if name == "bbr" {
            self.traffic.tcp_connections_bbr.add(1);
        }
        if let Err(error) = asked {
            static SAID: Once = Once::new();
            SAID.call_once(|| tracing::warn!("{}", refused(&name, &error)));
        }
    }
}

/// What to tell a person whose kernel refuses BBR.
fn refused(runs: &str, error: &io::Error) -> String {
    format!(
        "TCP runs {runs} because the kernel refuses bbr ({error}): one source over a long line with losses will be slow, \
         a tenth of what it carries; many sources make up for some. To allow bbr, as root: `modprobe tcp_bbr; \
         sysctl -w net.ipv4.tcp_allowed_congestion_control=\"$(sysctl -n net.ipv4.tcp_allowed_congestion_control) bbr\"`. \
         To be content with {runs}, set the congestion option to \"system\""
    )
}

#[cfg(target_os = "linux")]
fn set_congestion(socket: &SockRef<'_>, name: &str) -> io::Result<()> {
    socket.set_tcp_congestion(name.as_bytes())
}

/// Only Linux has it for a single socket.
#[cfg(not(target_os = "linux"))]
fn set_congestion(_: &SockRef<'_>, _: &str) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// What a socket runs, as the kernel says.
#[cfg(target_os = "linux")]
pub(super) fn congestion(socket: &SockRef<'_>) -> io::Result<String> {
    let name = socket.tcp_congestion()?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn congestion(_: &SockRef<'_>) -> io::Result<String> {
    Ok("what the system has".to_owned())
}

#[cfg(target_os = "linux")]
fn limit_unsent(socket: &SockRef<'_>, bytes: u32) -> io::Result<()> {
    socket.set_tcp_notsent_lowat(bytes)
}

#[cfg(not(target_os = "linux"))]
fn limit_unsent(_: &SockRef<'_>, _: u32) -> io::Result<()> {
    Ok(())
}

/// Says once in a process if the kernel keeps sockets' buffers too small for fast long lines.
pub(super) fn look_at_buffers() {
    static LOOKED: Once = Once::new();
    LOOKED.call_once(|| {
        for name in ["tcp_wmem", "tcp_rmem"] {
            // Not on Linux: there is nothing to look at.
            let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
            if let Some(advice) = advice(name, &text) {
                tracing::warn!("{advice}");
            }
        }
    });
}

/// What to tell a person about a line such as `4096 16384 4194304`: nothing, if its last number is large enough.
fn advice(name: &str, text: &str) -> Option<String> {
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [least, usual, most] = numbers[..] else { return None };
    (most < BUFFERS_MIN).then(|| {
        format!(
            "net.ipv4.{name} lets a connection buffer {most} bytes: enough for 110 Mbit/s at 100 ms, a quarter of what 500 \
             Mbit/s need. To raise it, as root: `sysctl -w net.ipv4.{name}=\"{least} {usual} 33554432\"`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (dialled, listener.accept().unwrap().0)
    }

    fn tuner(congestion: Congestion) -> Tuner {
        let options = TransportOptions { congestion, ..TransportOptions::default() };
        Tuner::new(options, Arc::default(), CongestionSeen::default())
    }

    #[test]
    fn small_buffers_are_told_with_the_line_that_enlarges_them() {
        let told = advice("tcp_wmem", "4096\t16384\t4194304\n").unwrap();
        assert!(told.contains("sysctl -w net.ipv4.tcp_wmem=\"4096 16384 33554432\""), "{told}");
        assert_eq!(advice("tcp_wmem", "4096 16384 16777216"), None);
        assert_eq!(advice("tcp_wmem", ""), None, "another system");
        assert_eq!(advice("tcp_wmem", "1 2 x"), None);
    }

    #[test]
    fn a_kernel_that_refuses_is_told_with_the_line_that_allows_it() {
        let told = refused("cubic", &io::Error::from(io::ErrorKind::PermissionDenied));
        for part in ["TCP runs cubic", "modprobe tcp_bbr", "net.ipv4.tcp_allowed_congestion_control", "\"system\""] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_the_kernel_does_not_know_changes_nothing() {
        let (dialled, _accepted) = pair();
        let socket = SockRef::from(&dialled);
        let before = congestion(&socket).unwrap();
        assert!(set_congestion(&socket, "no-such-thing").is_err());
        assert_eq!(congestion(&socket).unwrap(), before);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_option_leaves_the_socket_as_it_is_but_for_what_may_lie_unsent() {
        let (dialled, _accepted) = pair();
        let before = congestion(&SockRef::from(&dialled)).unwrap();
        let tuner = tuner(Congestion::System);
        tuner.tune(SockRef::from(&dialled));
        assert_eq!(congestion(&SockRef::from(&dialled)).unwrap(), before);
        assert_eq!(tuner.seen.name(), Some(before));
        assert_eq!(SockRef::from(&dialled).tcp_notsent_lowat().unwrap(), 512 << 10);
        assert_eq!(tuner.traffic.read().tcp_connections, 1);
    }

    /// Runs where the kernel has BBR, and where it has not: what it says must be true either way.
    #[cfg(target_os = "linux")]
    #[test]
    fn both_ends_run_bbr_where_the_kernel_allows_it_and_the_count_says_whether_they_do() {
        let (dialled, accepted) = pair();
        let allowed = set_congestion(&SockRef::from(&pair().0), "bbr").is_ok();
        let tuner = tuner(Congestion::Bbr);
        for end in [&dialled, &accepted] {
            tuner.tune(SockRef::from(end));
            let runs = congestion(&SockRef::from(end)).unwrap();
            assert!(!allowed || runs == "bbr", "{runs}");
            assert_eq!(tuner.seen.name(), Some(runs));
        }
        let traffic = tuner.traffic.read();
        let runs = tuner.seen.name();
        assert_eq!((traffic.tcp_connections, traffic.tcp_connections_bbr > 0), (2, runs.as_deref() == Some("bbr")));
    }
}
