//! One network namespace without a name: made, entered, set up, and gone with the last who is in it or holds it open.
//! A killed run leaves none behind, since nothing but its own descriptors and programs held them.

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

/// Kernel settings of a namespace. Buffers may grow to 32 MiB: 500 Mbit/s at 100 ms need 2.5 times their
/// bandwidth-delay product, and the usual 4 MiB hold one connection at 130. Nothing learnt on one connection is kept
/// for the next, so that each starts as between machines that never met.
const SETTINGS: [(&str, &str); 3] =
    [("tcp_rmem", "4096 131072 33554432"), ("tcp_wmem", "4096 65536 33554432"), ("tcp_no_metrics_save", "1")];

/// What names a namespace while it is there: device and inode of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceId(u64, u64);

impl NamespaceId {
    /// Of the namespace that this file in `/proc/…/ns` is.
    pub(crate) fn of(path: &Path) -> io::Result<NamespaceId> {
        fs::metadata(path).map(|file| NamespaceId(file.dev(), file.ino()))
    }
}

/// A namespace that stays while this value does.
#[derive(Debug)]
pub(crate) struct Namespace {
    handle: File,
    pub(crate) id: NamespaceId,
}

impl Namespace {
    /// Makes a namespace, its loopback device up, and runs `set_up` in it.
    ///
    /// # Errors
    /// The kernel's, mostly that one must be root, with what was tried.
    pub(crate) fn create<T: Send>(
        set_up: impl FnOnce() -> Result<T, Refused> + Send,
    ) -> Result<(Namespace, T), Refused> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(refused("make a network namespace"))?;
            loopback_up().map_err(refused("bring its loopback device up"))?;
            for (name, value) in SETTINGS {
                fs::write(format!("/proc/sys/net/ipv4/{name}"), value).map_err(refused(name))?;
            }
            let made = set_up()?;
            let path = Path::new("/proc/thread-self/ns/net");
            let handle = File::open(path).map_err(refused("open it"))?;
            let id = NamespaceId::of(path).map_err(refused("name it"))?;
            Ok((Namespace { handle, id }, made))
        })
    }

    /// Runs `work` on a thread of its own in this namespace. Sockets made there, and programs and threads started
    /// there, stay in it for life.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(|| {
            setns(&self.handle, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
    }
}

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {why}")]
pub(crate) struct Refused {
    what: &'static str,
    why: io::Error,
}

/// Makes an error of what was tried.
pub(crate) fn refused<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Refused {
    move |why| Refused { what, why: why.into() }
}

/// A namespace belongs to a thread, and a thread of a test runner or a runtime must keep its own.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// One message to the kernel (rtnetlink(7)): the first device, which is the loopback, is to be up.
fn loopback_up() -> io::Result<()> {
    const LENGTH: u32 = 32;
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const UP: u32 = 1;
    let mut message = Vec::with_capacity(LENGTH as usize);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    message.extend([0; 12]); // sequence number and sender of the header; family and type of the device
    message.extend(1u32.to_ne_bytes()); // which device
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes()); // of the flags, this one is meant
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(netlink.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = [0; 128];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // A header, then 0 or minus the error.
    let code = answer[..length].get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
