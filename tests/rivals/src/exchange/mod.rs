//! The exchange beside others: what Covey costs over plain TCP and over a raw libp2p stream, which are its bounds, and
//! beside iroh-blobs, which does the same work.
//!
//! Here: what is compared and where bytes lie. `role`, in processes of their own, plays a part for each contestant
//! (`tcp`, `stream`, `iroh`, `covey`); `process` commands one; `loopback`, `rss` and `wan` are the measurements.

mod content;
mod covey;
mod iroh;
mod loopback;
mod options;
mod process;
pub mod role;
mod rss;
mod stream;
mod table;
mod tcp;
mod usage;
mod wan;

use crate::report::Report;
pub use options::{Options, USAGE};
use std::path::{Path, PathBuf};

/// Whatever ends a measurement: it is printed and nothing more.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// As it is written.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
            /// From what is written.
            pub fn parse(word: &str) -> Result<$name, Failure> {
                match word {
                    $($word => Ok($name::$variant),)*
                    _ => Err(format!("{word:?} is none of {:?}", [$($word),*]).into()),
                }
            }
        }
    )*};
}

words! {
    /// Who sends.
    Contestant {
        /// Plain TCP.
        Tcp = "tcp",
        /// A raw libp2p stream.
        Stream = "raw-stream",
        /// iroh-blobs.
        Iroh = "iroh-blobs",
        /// Covey.
        Covey = "covey",
    }
    /// From where to where.
    Storage {
        /// From one block to nowhere: only for those that verify nothing.
        Discard = "discard",
        /// From a file in memory (tmpfs) to another, or as the contestant keeps blobs in memory.
        Memory = "memory",
        /// From a file on the disk to another.
        Files = "files",
    }
    /// The congestion control of TCP.
    Congestion {
        /// As the system has it.
        System = "system",
        /// BBR.
        Bbr = "bbr",
    }
}

/// Measures and reports.
///
/// # Errors
/// What kept it from measuring anything. A contestant that fails is reported and the others go on.
pub fn measure(options: &Options, report: &mut Report) -> Result<(), Failure> {
    let system = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    report.text("system_congestion", system.trim());
    let places = Places::create(&options.folder)?;
    match options.mode {
        options::Mode::Loopback => loopback::measure(options, &places, report),
        options::Mode::Rss => rss::measure(options, &places, report),
        options::Mode::Wan => wan::measure(options, &places, report),
    }
}

/// Folders of this run, removed at its end.
pub struct Places {
    memory: PathBuf,
    files: PathBuf,
}

impl Places {
    fn create(folder: &Path) -> Result<Places, Failure> {
        let name = format!("covey-rivals-{}", std::process::id());
        let places = Places { memory: Path::new("/dev/shm").join(&name), files: folder.join(&name) };
        for place in [&places.memory, &places.files] {
            std::fs::create_dir_all(place).map_err(|error| format!("cannot create {}: {error}", place.display()))?;
        }
        Ok(places)
    }

    /// Where bytes of such storage lie.
    pub fn of(&self, storage: Storage) -> &Path {
        match storage {
            Storage::Discard | Storage::Memory => &self.memory,
            Storage::Files => &self.files,
        }
    }

    /// A new, empty folder for one role.
    pub fn role(&self, storage: Storage, name: &str) -> Result<PathBuf, Failure> {
        let folder = self.of(storage).join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// A file to send, made if it is not there yet.
    pub fn source(&self, storage: Storage, bytes: u64) -> Result<PathBuf, Failure> {
        let path = self.of(storage).join(format!("source-{bytes}"));
        if !path.exists() {
            content::make(&path, bytes, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        Ok(path)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        // What cannot be removed is the next user's of the folder to see.
        let _ = std::fs::remove_dir_all(&self.memory);
        let _ = std::fs::remove_dir_all(&self.files);
    }
}
