//! What a process has cost its machine so far, as Linux has counted it: the most memory it had at once, and what it has
//! written to disks. Elsewhere nothing is known.
//!
//! **Memory** is the peak of the resident set (`VmHWM` of `/proc/self/status`): pages of this process that were in memory
//! at once, those of its binary and of mapped files among them, whether or not the allocator has a use for them.
//!
//! **Written** are the bytes of pages that this process has made dirty in the page cache (`write_bytes` of
//! `/proc/self/io`). They are counted when a page becomes dirty, not when it reaches the disk: a page that is changed ten
//! times before the system writes it counts once, a file that is removed before that counts although it never reaches the
//! disk, and `/dev/shm` and other file systems without a disk count nothing. So it is what the process asks of a disk;
//! what it gets may be less.

use serde::{Deserialize, Serialize};

/// What a process has cost its machine so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The most bytes of memory it had at once since its start; none where the system does not tell.
    pub memory_peak: Option<u64>,
    /// Bytes it has written since its start; none where the system does not tell.
    pub disk_written: Option<u64>,
}

impl Usage {
    /// Of this process, until now.
    pub fn of_this_process() -> Usage {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Usage {
            memory_peak: memory_peak(&read("/proc/self/status")),
            disk_written: disk_written(&read("/proc/self/io")),
        }
    }

    /// Of this process without its children, until now. What children have written counts for their parent, too, once they
    /// have ended; so the disk's part is that of the threads that live now.
    pub fn of_this_process_alone() -> Usage {
        let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let written =
            threads.filter_map(|thread| disk_written(&std::fs::read_to_string(thread.path().join("io")).ok()?));
        Usage { disk_written: written.reduce(u64::saturating_add), ..Usage::of_this_process() }
    }

    /// Of two lives of one node, one after the other: the larger peak, and what both have written.
    pub fn and(self, later: Usage) -> Usage {
        let either = |add: fn(u64, u64) -> u64, one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(add(one, other)),
            (one, other) => one.or(other),
        };
        Usage {
            memory_peak: either(u64::max, self.memory_peak, later.memory_peak),
            disk_written: either(u64::saturating_add, self.disk_written, later.disk_written),
        }
    }
}

/// `VmHWM:    123456 kB`, where a kB is 1,024 bytes.
fn memory_peak(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// `write_bytes: 123456`.
fn disk_written(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_is_understood() {
        let status = "Name:\tcovey\nVmPeak:\t  900000 kB\nVmHWM:\t  123456 kB\nVmRSS:\t  100000 kB\n";
        assert_eq!(memory_peak(status), Some(123_456 * 1024));
        let io = "rchar: 5\nwchar: 7\nread_bytes: 0\nwrite_bytes: 4096\ncancelled_write_bytes: 1024\n";
        assert_eq!(disk_written(io), Some(4096));
    }

    #[test]
    fn what_another_system_says_is_nothing() {
        for text in ["", "VmHWM: many kB", "VmHWM: 5 MB", "VmHWM: 99999999999999999999 kB", "write_bytes: -1"] {
            assert_eq!((memory_peak(text), disk_written(text)), (None, None), "{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_is_used_is_seen() {
        let before = Usage::of_this_process().memory_peak.unwrap();
        let block = std::hint::black_box(vec![1_u8; 256 << 20]);
        let after = Usage::of_this_process().memory_peak.unwrap();
        drop(block);
        assert!(after >= 256 << 20 && after >= before, "{before} bytes before, {after} after");
    }

    #[test]
    fn lives_add_up() {
        let life = |memory_peak, disk_written| Usage { memory_peak, disk_written };
        let both = life(Some(5), Some(10)).and(life(Some(3), Some(1)));
        assert_eq!(both, life(Some(5), Some(11)));
        assert_eq!(Usage::default().and(both), both);
        assert_eq!(both.and(Usage::default()), both);
    }
}
