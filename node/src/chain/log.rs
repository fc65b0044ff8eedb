//! What an in-memory chain did, as a file: a line a block. Who has the file can do every block again and check every
//! signature, hash and commitment of it; an audit does.

use super::SignedCall;
use super::memory::{Block, CALL_BYTES_MAX, FINALITY_LAG_MAX, Genesis, MemoryLedger, POOL_MAX};
use covey_proto::chain::Member;
use covey_proto::{BlockNumber, Digest, Hotkey, Uid};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Bytes of the longest line read: a full block's calls in hexadecimal, each in quotes and with a comma, and its head.
/// A genesis of 256 members has some 40,000.
const LINE_BYTES_MAX: usize = POOL_MAX * (2 * CALL_BYTES_MAX + 3) + 1024;

/// Why a log cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system refuses.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        error: std::io::Error,
    },
    /// A line that is no block, or does not follow.
    #[error("{path}, line {line}: {what}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenesisLine {
    nonce: u64,
    netuid: u16,
    finality_lag: u32,
    members: Vec<MemberLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberLine {
    uid: Uid,
    hotkey: Digest,
    registered_at: BlockNumber,
    permit: bool,
    stake: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockLine {
    number: BlockNumber,
    hash: Digest,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    calls: Vec<String>,
}

/// Writes blocks to a file as they are made.
pub struct ChainLog {
    path: PathBuf,
    file: File,
}

impl ChainLog {
    /// Starts a file with the chain's genesis.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path, genesis: &Genesis) -> Result<ChainLog, LogError> {
        let file = File::create(path).map_err(|error| LogError::Io { path: path.to_owned(), error })?;
        let mut log = ChainLog { path: path.to_owned(), file };
        let member = |member: &Member| MemberLine {
            uid: member.uid,
            hotkey: Digest::new(*member.hotkey.as_bytes()),
            registered_at: member.registered_at,
            permit: member.permit,
            stake: member.stake,
        };
        log.line(&GenesisLine {
            nonce: genesis.nonce,
            netuid: genesis.netuid,
            finality_lag: genesis.finality_lag,
            members: genesis.members.iter().map(member).collect(),
        })?;
        Ok(log)
    }

    /// Adds a block.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, block: &Block) -> Result<(), LogError> {
        let calls = block.calls.iter().map(|call| hex::encode(&call.0)).collect();
        self.line(&BlockLine { number: block.number, hash: block.hash, calls })
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), LogError> {
        let mut line = serde_json::to_vec(value).expect("numbers and texts have a JSON form");
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| LogError::Io { path: self.path.clone(), error })
    }
}

/// Does every block of a log again, calling `each` with the chain after it. What follows the last line's end is a torn
/// write and is left out.
///
/// # Errors
/// The file cannot be read, a line is no block, or a block does not follow from those before it.
pub fn replay<E: From<LogError>>(
    path: &Path,
    mut each: impl FnMut(&MemoryLedger, BlockNumber) -> Result<(), E>,
) -> Result<MemoryLedger, E> {
    let mut lines = Lines::open(path)?;
    let Some(genesis) = lines.next()? else {
        return Err(lines.fault("no genesis: the file is empty or cut off").into());
    };
    let genesis = parse_genesis(genesis).map_err(|what| lines.fault(what))?;
    let ledger = MemoryLedger::new(genesis);
    while let Some(line) = lines.next()? {
        let block = parse_block(line).map_err(|what| lines.fault(what))?;
        ledger.replay(&block).map_err(|error| lines.fault(error))?;
        each(&ledger, block.number)?;
    }
    Ok(ledger)
}

/// The whole lines of a log, one at a time.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    buffer: Vec<u8>,
    /// The line in the buffer, from 1.
    number: usize,
}

impl Lines {
    fn open(path: &Path) -> Result<Lines, LogError> {
        let file = File::open(path).map_err(|error| LogError::Io { path: path.to_owned(), error })?;
        Ok(Lines { path: path.to_owned(), reader: BufReader::new(file), buffer: Vec::new(), number: 0 })
    }

    /// The next line; none at the end of the file, which may come within a line.
    fn next(&mut self) -> Result<Option<&[u8]>, LogError> {
        self.buffer.clear();
        self.number += 1;
        let mut bounded = std::io::Read::take(&mut self.reader, LINE_BYTES_MAX as u64);
        let read = bounded.read_until(b'\n', &mut self.buffer);
        read.map_err(|error| LogError::Io { path: self.path.clone(), error })?;
        if self.buffer.ends_with(b"\n") {
            return Ok(Some(&self.buffer));
        }
        match self.buffer.len() < LINE_BYTES_MAX {
            true => Ok(None),
            false => Err(self.fault(format!("no block's line is longer than {LINE_BYTES_MAX} bytes"))),
        }
    }

    fn fault(&self, what: impl ToString) -> LogError {
        LogError::Line { path: self.path.clone(), line: self.number, what: what.to_string() }
    }
}

fn parse_genesis(line: &[u8]) -> Result<Genesis, String> {
    let genesis: GenesisLine = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let finality_lag = genesis.finality_lag;
    if finality_lag > FINALITY_LAG_MAX {
        return Err(format!("finality_lag is {finality_lag}; it is at most {FINALITY_LAG_MAX} blocks"));
    }
    let member = |member: MemberLine| Member {
        uid: member.uid,
        hotkey: Hotkey::new(*member.hotkey.as_bytes()),
        registered_at: member.registered_at,
        permit: member.permit,
        stake: member.stake,
    };
    let members = genesis.members.into_iter().map(member).collect();
    Ok(Genesis { nonce: genesis.nonce, netuid: genesis.netuid, members, finality_lag })
}

fn parse_block(line: &[u8]) -> Result<Block, String> {
    let block: BlockLine = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let calls = block.calls.iter().map(|call| hex::decode(call).map(SignedCall)).collect::<Result<Vec<_>, _>>();
    Ok(Block { number: block.number, hash: block.hash, calls: calls.map_err(|error| error.to_string())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log of a chain of three empty blocks.
    fn log() -> (tempfile::TempDir, PathBuf, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let genesis = Genesis { nonce: 1, netuid: 3, members: Vec::new(), finality_lag: 2 };
        let (mut log, ledger) = (ChainLog::create(&path, &genesis).unwrap(), MemoryLedger::new(genesis));
        for _ in 0..3 {
            log.append(&ledger.produce()).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        (folder, path, text)
    }

    fn blocks(path: &Path) -> Result<u32, LogError> {
        let mut blocks = 0;
        replay(path, |_, _| {
            blocks += 1;
            Ok::<(), LogError>(())
        })?;
        Ok(blocks)
    }

    fn fault(path: &Path) -> (usize, String) {
        match blocks(path).unwrap_err() {
            LogError::Line { line, what, .. } => (line, what),
            error => panic!("{error}"),
        }
    }

    #[test]
    fn a_torn_end_is_left_out_and_what_is_before_it_counts() {
        let (_folder, path, text) = log();
        assert_eq!(blocks(&path).unwrap(), 3);
        std::fs::write(&path, text.trim_end()).unwrap();
        assert_eq!(blocks(&path).unwrap(), 2, "without its end, a line is torn");
        std::fs::write(&path, &text[..20]).unwrap();
        assert_eq!(fault(&path).0, 1, "no genesis");
    }

    #[test]
    fn a_line_without_its_end_in_the_middle_is_named() {
        let (_folder, path, text) = log();
        let second_end = text.match_indices('\n').nth(1).unwrap().0;
        std::fs::write(&path, [&text[..second_end], &text[second_end + 1..]].concat()).unwrap();
        assert_eq!(fault(&path).0, 2);
    }

    #[test]
    fn a_line_too_long_is_no_torn_end() {
        let (_folder, path, text) = log();
        let (genesis, blocks) = text.split_once('\n').unwrap();
        std::fs::write(&path, format!("{genesis}\n{}\n{blocks}", " ".repeat(LINE_BYTES_MAX))).unwrap();
        let (line, what) = fault(&path);
        assert!(line == 2 && what.contains("longer than"), "line {line}: {what}");
    }

    #[test]
    fn a_chain_whose_finality_is_too_far_behind_is_refused() {
        let (_folder, path, text) = log();
        std::fs::write(&path, text.replace("\"finality_lag\":2", "\"finality_lag\":4294967295")).unwrap();
        let (line, what) = fault(&path);
        assert!(line == 1 && what.contains("at most 64"), "line {line}: {what}");
    }
}
