//! The network as its users have it: built of nodes, entered, counted, and gone with everything in it. What packets
//! undergo is the model's; how they move is the emulator's.

use crate::emulator::Emulator;
pub use crate::emulator::Timeliness;
use crate::namespace::{Namespace, NamespaceId, Refused, refused};
use crate::net::Traffic;
use crate::node::{MTU, Node};
use crate::processes::{self, MARK};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::process::{Child, Command};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Nodes at most: each has a second byte of 10.x.0.1 of its own, so that no two look like neighbours.
const NODES_MAX: usize = 254;
/// The device's name in each namespace.
const DEVICE: &str = "wan";
/// Packets that a device keeps for the emulator: 6 MB, so 50 ms at 1 Gbit/s, in case it does not get its turn.
const DEVICE_QUEUE: u32 = 4096;

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum WanError {
    /// This machine, or this user, cannot have one: tests are skipped.
    #[error("no emulated network here: {why}; it takes /dev/net/tun, and root or `unshare -Ur` before the command")]
    Unavailable {
        /// What was refused.
        why: String,
    },
    /// More nodes than addresses.
    #[error("{nodes} nodes; an emulated network has at most {NODES_MAX}")]
    TooManyNodes {
        /// How many were asked for.
        nodes: usize,
    },
    /// The emulator could not be started or asked.
    #[error("the emulated network failed")]
    Io(#[from] io::Error),
}

/// Nodes joined by emulated lines, each a network namespace of its own: what runs in one sees no network but this.
///
/// Dropping it ends every program inside, also when a test panics.
///
/// ```no_run
/// # use covey_wan::{Node, Rate, Wan};
/// # use std::{process::Command, time::Duration};
/// let home = Node::of_path(Rate::mbit(110), Rate::mbit(500), Duration::from_millis(50), 0.001);
/// let wan = Wan::build(&[home; 2], 7)?;
/// let server = wan.spawn(0, Command::new("iperf3").arg("-s"))?;
/// let client = wan.spawn(1, Command::new("iperf3").arg("-c").arg(wan.address(0).to_string()))?.wait()?;
/// println!("{:?} {:?}", wan.traffic()[0].up, wan.timeliness()?);
/// # Ok::<(), covey_wan::WanError>(())
/// ```
pub struct Wan {
    // In this order: programs end in `drop`, then packets stop, then namespaces go.
    emulator: Emulator,
    namespaces: Vec<Namespace>,
    owner: String,
}

impl Wan {
    /// Makes a namespace and a device for each node, and joins them. Losses follow from the seed (and from which packets
    /// come when, which no seed decides). Ends what earlier runs that were killed left running.
    ///
    /// # Errors
    /// [`WanError::Unavailable`] without the rights or the device that it takes.
    pub fn build(nodes: &[Node], seed: u64) -> Result<Wan, WanError> {
        if nodes.len() > NODES_MAX {
            return Err(WanError::TooManyNodes { nodes: nodes.len() });
        }
        processes::end_leftovers();
        let made: Result<Vec<(Namespace, SyncDevice)>, Refused> =
            (0..nodes.len()).map(|node| Namespace::create(|| device(address(node)))).collect();
        let made = made.map_err(|why| WanError::Unavailable { why: why.to_string() })?;
        let (namespaces, devices) = made.into_iter().unzip();
        let emulator = Emulator::start(devices, nodes, seed, node_of)?;
        Ok(Wan { emulator, namespaces, owner: processes::owner() })
    }

    /// The same for a test: where there can be no network it says so on standard output and there is none.
    ///
    /// # Panics
    /// If the environment has `COVEY_WAN_REQUIRED`, as where tests must not be skipped unseen; and at other errors.
    pub fn build_or_skip(nodes: &[Node], seed: u64) -> Option<Wan> {
        match Wan::build(nodes, seed) {
            Ok(wan) => Some(wan),
            Err(error @ WanError::Unavailable { .. }) if std::env::var_os("COVEY_WAN_REQUIRED").is_none() => {
                println!("skipped: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The address of a node: 10.(node + 1).0.1.
    pub fn address(&self, node: usize) -> Ipv4Addr {
        address(node)
    }

    /// Starts a program inside a node. It is ended with the network at the latest; waiting for it is the caller's.
    ///
    /// # Errors
    /// Those of [`Command::spawn`].
    ///
    /// # Panics
    /// If there is no such node.
    pub fn spawn(&self, node: usize, command: &mut Command) -> io::Result<Child> {
        command.env(MARK, &self.owner);
        self.namespaces[node].within(|| command.spawn())?
    }

    /// Runs `work` on a thread of its own inside a node, and waits for it. Sockets made there, and threads and programs
    /// started there (a tokio runtime's too), are that node's for life, and can be handed out. A panic goes on here.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    ///
    /// # Panics
    /// If there is no such node, or if `work` does.
    pub fn within<T: Send>(&self, node: usize, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.namespaces[node].within(work)
    }

    /// What has gone through each node's line so far. A packet counts when it is sent; one that is counted as sent to a
    /// node may not have come there yet.
    pub fn traffic(&self) -> Vec<Traffic> {
        self.emulator.traffic()
    }

    /// Whether the emulator kept up so far.
    ///
    /// # Errors
    /// If the devices cannot be asked.
    pub fn timeliness(&self) -> io::Result<Timeliness> {
        let mut timeliness = self.emulator.timeliness();
        for namespace in &self.namespaces {
            timeliness.overruns += namespace.within(overruns)??;
        }
        Ok(timeliness)
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        let inside: Vec<NamespaceId> = self.namespaces.iter().map(|namespace| namespace.id).collect();
        processes::end_all_in(&inside);
    }
}

fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, u8::try_from(node + 1).unwrap_or(u8::MAX), 0, 1)
}

fn node_of(address: [u8; 4]) -> Option<usize> {
    match address {
        [10, number, 0, 1] => usize::from(number).checked_sub(1),
        _ => None,
    }
}

/// Makes the device in the namespace of the calling thread.
fn device(address: Ipv4Addr) -> Result<SyncDevice, Refused> {
    let builder = DeviceBuilder::new().name(DEVICE).mtu(MTU).ipv4(address, 8, None);
    let device = builder.build_sync().map_err(refused("make a TUN device"))?;
    // The one thing that takes root outside a user namespace; with the default of 500, overruns may show.
    device.set_tx_queue_len(DEVICE_QUEUE).ok();
    device.set_nonblocking(true).map_err(refused("set up a TUN device"))?;
    Ok(device)
}

/// Packets that the device of this thread's namespace did not keep for the emulator: the twelfth number of its line.
fn overruns() -> io::Result<u64> {
    let devices = fs::read_to_string("/proc/thread-self/net/dev")?;
    let ours = devices.lines().find_map(|line| line.trim_start().strip_prefix(DEVICE)?.strip_prefix(':'));
    let dropped = ours.and_then(|numbers| numbers.split_whitespace().nth(11)?.parse().ok());
    dropped.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no {DEVICE} in {devices}")))
}
